"""Which word of the prompts belongs to which label: by the data's own names, by position where they are mute."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adamerge.errors import ConfigError, DataError
from adamerge.tasks.names import all_numbers, in_order, listed, suggest

log = logging.getLogger(__name__)
_SHOWN = 5  # pairs in a message


@dataclass(frozen=True)
class ClassWords:
    """The words of each label, in the labels' order.

    Attributes:
        words: None where only a head file knows the classes.
        by_position: nothing in the data's names shows which word is whose, so that the lists' order decides.
    """

    words: tuple[str, ...] | None
    by_position: bool = False


def class_words(
    task: str,
    given: Mapping[str, str] | tuple[str, ...] | None,
    known: tuple[str, ...] | None,
    names: tuple[str, ...] | None = None,
) -> ClassWords:
    """The words for each label of a task.

    Args:
        given: words in any order that the data's names tell, a mapping from the data's names to words, or None for
            the data's names with underscores turned to spaces.
        known: the data's own name of each label; None where it has none.
        names: the usual name of each of the given words' classes, where the words are others.

    Raises:
        ConfigError: another number of names than words.
        DataError: words that equal the data's names in part, at other positions; a mapping that does not fit.
    """
    if given is None:
        words = None if known is None else tuple(" ".join(name.replace("_", " ").split()) for name in known)
        return ClassWords(words)
    if isinstance(given, Mapping):
        return ClassWords(_mapped(task, given, known))
    if names is not None and len(names) != len(given):
        raise ConfigError(
            f"suite.catalogue.{task}: {len(given)} classes, but {len(names)} names; each class has one."
        )
    if known is None or len(known) != len(given):
        return ClassWords(given)  # another number is refused when the data is checked
    return _paired(task, given, known, [given] if names is None else [names, given])


def _paired(
    task: str, words: tuple[str, ...], known: tuple[str, ...], spellings: Sequence[tuple[str, ...]]
) -> ClassWords:
    """The words in the order of the data's labels; `spellings` are what the data may call the words' classes."""
    rank = _positions(known)
    for own in spellings:
        place = matches(own, known)
        if len(place) == len(known):
            return ClassWords(tuple(words[place[label]] for label in range(len(known))))
        _refuse_contradiction(
            task, own, known, {label: rank[label] for label in place if place[label] != rank[label]}
        )
    paired = tuple(words[index] for index in rank)
    if any(all(map(_same_parts, (own[i] for i in rank), known)) for own in spellings):
        return ClassWords(paired)
    _warn(task, paired, known, rank)
    return ClassWords(paired, by_position=True)


def _positions(known: tuple[str, ...]) -> list[int]:
    """Which word of a list stands for each label: labels named by numbers follow the numbers, whatever their order."""
    if not all_numbers(known) or len(set(known)) < len(known):
        return list(range(len(known)))
    ordered = in_order(known)
    return [ordered.index(name) for name in known]


def matches(own: tuple[str, ...], known: tuple[str, ...]) -> dict[int, int]:
    """Where the data's names stand in `own`, by label, as far as one name there is like it and no other is.

    Names that are the same are paired before those that are the same but for case, and so on.
    """
    place: dict[int, int] = {}
    for key in (_exact, _case, _plain):
        taken = set(place.values())
        mine = {index: key(name) for index, name in enumerate(own) if index not in taken}
        theirs = {label: key(name) for label, name in enumerate(known) if label not in place}
        once, there = Counter(mine.values()), Counter(theirs.values())
        index_of = {name: index for index, name in mine.items()}
        place |= {label: index_of[name] for label, name in theirs.items() if once[name] == there[name] == 1}
    return place


def unlike(own: Sequence[str], others: Sequence[str]) -> int | None:
    """The first position at which two lists of class names do not name the same class; None where all do.

    Names are alike in another case and spelling, and where all words of one are in the other.
    """
    place = matches(tuple(own), tuple(others))
    for index, (one, other) in enumerate(zip(own, others, strict=False)):
        if place.get(index, index) != index or not (
            _plain(one) == _plain(other) or _same_parts(_apart(one), _apart(other))
        ):
            return index
    return None if len(own) == len(others) else min(len(own), len(others))


def _apart(name: str) -> str:
    """Words that are told apart by capitals alone, with spaces: "Annual Crop" of "AnnualCrop"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)


def _refuse_contradiction(
    task: str, own: tuple[str, ...], known: tuple[str, ...], astray: Mapping[int, int]
) -> None:
    """`astray`: what stands in `own` at the labels whose names `own` has elsewhere."""
    if not astray:
        return
    label, index = next(iter(astray.items()))
    raise DataError(
        f"suite.catalogue.{task}.classes: {len(astray)} of {len(known)} words equal the data's class names at other "
        f"positions, e.g. '{own[index]}' stands where the data has '{known[label]}'.\n"
        f"  The data has {listed(known)}. Map its names to words, +suite.catalogue.{task}.classes="
        f"{{{known[0]}: <words>, ...}}; null takes its names."
    )


def _warn(task: str, paired: tuple[str, ...], known: tuple[str, ...], rank: list[int]) -> None:
    first = sorted(range(len(known)), key=rank.__getitem__)[:_SHOWN]
    pairs = ", ".join(f"{paired[label]} -> {known[label]}" for label in first)
    more = f", ... ({len(known)} in all)" if len(known) > _SHOWN else ""
    log.warning(
        "Task '%s': its class words are not the data's names, so they are paired by position: %s%s. To be sure, map "
        "the names: +suite.catalogue.%s.classes={%s: %s, ...}",
        task, pairs, more, task, known[first[0]], paired[first[0]],
    )  # fmt: skip


def _exact(name: str) -> str:
    return name


def _case(name: str) -> str:
    """Without case and spacing, punctuation kept: "C++" is not "C"."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().replace("_", " ").split())


def _plain(name: str) -> str:
    """A name's letters and digits: "AnnualCrop", "annual_crop" and "Annual Crop" are one, and so are "03" and "3"."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    kept = "".join(c for c in folded if unicodedata.category(c)[0] in "LNM")
    return kept.lstrip("0") or "0" if kept.isdecimal() else kept


def _same_parts(one: str, other: str) -> bool:
    """Whether all words of one name are in the other: "abbey" and "a_abbey", "3" and "3 - three"."""
    a, b = (set(re.findall(r"\w+", _case(name))) for name in (one, other))
    return bool(a and b) and (a <= b or b <= a)


def _mapped(task: str, given: Mapping[str, str], known: tuple[str, ...] | None) -> tuple[str, ...]:
    where = f"suite.catalogue.{task}.classes"
    if known is None:
        raise DataError(f"{where} maps the data's class names, but the data has none. Give a list of words.")
    for key in given:
        if key not in known:
            raise DataError(f"{where}: the data has no class '{key}'; {suggest(key, known)}")
    missing = [key for key in known if key not in given]
    if missing:
        raise DataError(
            f"{where} has no words for {len(missing)} of {len(known)} classes: {listed(missing)}."
        )
    return tuple(given[key] for key in known)
