"""A task: its name, class names, prompt templates, and the source of its images."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adamerge.errors import ConfigError, DataError
from adamerge.tasks.images import Pictures, random_crop

log = logging.getLogger(__name__)

# The catalogue entry with the defaults of all tasks; "{task}" in its source is the task's name.
ANY_TASK = "*"
_ENTRY = ("source", "classes", "templates", "names", "sizes", "licence")
_TEMPLATES = ("a photo of a {}.",)


class Source(ABC):
    """Where a task's pictures come from. Labels have a method of their own: adaptation never calls it."""

    class_names: tuple[str, ...] | None = None
    """The data's own name of each label, in the order of the labels; None where the data has none."""

    @abstractmethod
    def images(self, split: str) -> Pictures:
        """The pictures of a split, "train" or "test".

        Raises:
            DataError: data that is not there or has no pictures.
        """

    @abstractmethod
    def labels(self, split: str) -> NDArray[np.int64] | None:
        """The class index of each picture, int64 (n,); None where the data has no labels."""

    def identity(self, split: str) -> str | None:
        """What tells this split's pictures from any others without decoding them; None where nothing does."""
        return None

    def pretraining_batch(
        self, n: int, rng: np.random.Generator, size: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Labeled pictures for pre-training, uint8 (n, size, size, 3) and int64 (n,), by `rng` alone.

        Drawn from the split "train", each cropped at random to 0.7 to 1 of its area. Nothing is flipped:
        digits, letters and signs would change their meaning.

        Raises:
            DataError: training pictures without labels.
        """
        images, labels = self.images("train"), self.labels("train")
        if labels is None:
            raise DataError("The training pictures have no labels, so they cannot serve for pre-training.")
        chosen = rng.integers(len(labels), size=n)
        pixels = [random_crop(images[index], size, (0.7, 1.0), rng) for index in chosen.tolist()]
        return np.stack(pixels), labels[chosen]


@dataclass(frozen=True)
class Task:
    """A classification task.

    Args:
        name: as in the config and in every report.
        classes: the words for each label in prompts; None where only a head file knows the classes.
        templates: prompts with "{}" in the class's place.
        source: the images.
        sizes: {split: number of pictures} that the published split has.
    """

    name: str
    classes: tuple[str, ...] | None
    templates: tuple[str, ...]
    source: Source
    sizes: Mapping[str, int] = field(default_factory=dict)

    def prompts(self) -> list[list[str]]:
        """The prompts of each class.

        Raises:
            DataError: no class names.
        """
        if self.classes is None:
            raise DataError(
                f"Task '{self.name}' has no class names, so no zero-shot head can be made of prompts.\n"
                f"  Give +suite.catalogue.{self.name}.classes=[...], or head files with checkpoints.heads=..."
            )
        return [[template.replace("{}", name) for template in self.templates] for name in self.classes]


def check(task: Task, split: str = "test") -> None:
    """Check that class names, labels and pictures of a split agree in number.

    Raises:
        DataError: what does not agree.
    """
    where = f"Task '{task.name}', split {split}"
    known = task.source.class_names
    if task.classes is not None and known is not None and len(task.classes) != len(known):
        raise DataError(
            f"{where}: {len(task.classes)} class names are given, but the data has {len(known)} classes: "
            f"{_list(known)}.\n  Mend suite.catalogue.{task.name}.classes; null takes the data's names."
        )
    images, labels = task.source.images(split), task.source.labels(split)
    if (expected := task.sizes.get(split)) not in (None, len(images)):
        log.warning(
            "%s: %d pictures, while the published split has %d; published numbers are for that.",
            where, len(images), expected,
        )  # fmt: skip
    if labels is None:
        return
    if len(labels) != len(images):
        raise DataError(f"{where}: {len(images)} pictures, but {len(labels)} labels; each picture needs one.")
    names = task.classes if task.classes is not None else known
    (wrong,) = np.nonzero((labels < 0) | (labels >= (np.inf if names is None else len(names))))
    if len(wrong):
        highest = "from 0 on" if names is None else f"0 to {len(names) - 1} ({len(names)} classes)"
        raise DataError(
            f"{where}: {len(wrong)} labels are out of range, e.g. {labels[wrong[0]]} of picture {wrong[0]}; "
            f"expected {highest}.\n  Mend the labels, or suite.catalogue.{task.name}.classes."
        )


def check_head(task: Task, rows: int) -> None:
    """Check that a task's head has a row for each class.

    Raises:
        DataError: it has another number.
    """
    names = task.classes if task.classes is not None else task.source.class_names
    if names is not None and len(names) != rows:
        raise DataError(
            f"Task '{task.name}': its head has {rows} rows, but there are {len(names)} classes: {_list(names)}.\n"
            f"  Give the head made for these classes, or mend suite.catalogue.{task.name}.classes."
        )


def build_tasks(
    names: Sequence[str], catalogue: Mapping[str, Mapping[str, Any]], instantiate: Callable[..., Any]
) -> list[Task]:
    """Make the named tasks of a suite.

    Args:
        catalogue: task -> {source, classes, templates}. `source` is what `instantiate` makes a Source of.
            `classes` lists the words of each label in the labels' order, or maps the data's own names to
            words (in any order), or is None for the data's own names with underscores turned to spaces.
            `templates` may be left out, and so may `names` (the data's own name for each of the classes
            listed, by which a source with another order of labels is recognised), `sizes` ({split: pictures})
            and `licence`. The entry "*" holds the defaults of all tasks.
        instantiate: makes the object that a config node describes.

    Raises:
        ConfigError: an unknown task, or a mistake in its entry.
        DataError: class names that do not fit the data, or data that is not there.
    """
    return [_build(name, _entry(name, catalogue), instantiate) for name in names]


def suggest(name: str, known: Iterable[str]) -> str:
    """The nearest known name for an error text, else the known names."""
    choices = list(known)
    near = get_close_matches(name, choices, n=1)
    return f"did you mean '{near[0]}'?" if near else f"there are: {_list(choices)}."


def _entry(name: str, catalogue: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    if name not in catalogue and ANY_TASK not in catalogue:
        raise ConfigError(f"The suite has no task '{name}'; {suggest(name, catalogue)}")
    entry = {**_for_task(name, catalogue.get(ANY_TASK, {})), **catalogue.get(name, {})}
    for key in entry:
        if key not in _ENTRY:
            raise ConfigError(f"suite.catalogue.{name} has no option '{key}'; {suggest(key, _ENTRY)}")
    if not entry.get("source"):
        raise ConfigError(f"suite.catalogue.{name} has no source; give it a source with a _target_.")
    return entry


def _for_task(name: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    source = defaults.get("source", {})
    filled = {k: v.replace("{task}", name) if isinstance(v, str) else v for k, v in source.items()}
    return {**defaults, "source": filled}


def _build(name: str, entry: Mapping[str, Any], instantiate: Callable[..., Any]) -> Task:
    where = f"suite.catalogue.{name}"
    templates = _words(f"{where}.templates", entry.get("templates") or _TEMPLATES)
    for template in templates:
        if "{}" not in template:
            raise ConfigError(f"{where}.templates: {template!r} has no {{}} where the class name goes.")
    given = entry.get("classes")
    if isinstance(given, Mapping):
        data_names, words = (_words(f"{where}.classes", list(part)) for part in (given, given.values()))
        given = dict(zip(data_names, words, strict=True))
    elif given is not None:
        given = _words(f"{where}.classes", given)
    source = instantiate(entry["source"])
    if isinstance(given, tuple) and entry.get("names") is not None:
        given = _in_data_order(name, given, _words(f"{where}.names", entry["names"]), source.class_names)
    return Task(name, _classes(name, given, source), templates, source, entry.get("sizes") or {})


def _in_data_order(
    name: str, words: tuple[str, ...], names: tuple[str, ...], known: tuple[str, ...] | None
) -> tuple[str, ...]:
    """The words in the order of the data's labels, where the data's names show that it numbers them otherwise."""
    if len(names) != len(words):
        raise ConfigError(
            f"suite.catalogue.{name}: {len(words)} classes, but {len(names)} names; each class has one."
        )
    if known is None:
        return words
    place = {_plain(own): index for index, own in enumerate(names)}
    order = [place.get(_plain(own)) for own in known]
    if len(place) < len(names) or None in order or len(set(order)) < len(order):
        return words  # the data's names are others: nothing can be told from them
    return tuple(words[index] for index in order if index is not None)


def _plain(text: str) -> str:
    """A name's letters and digits: "AnnualCrop", "annual_crop" and "Annual Crop" are one."""
    return "".join(c for c in text.lower() if c.isalnum())


def _words(where: str, values: Any) -> tuple[str, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ConfigError(f"{where}: a list is expected (got {values!r}).")
    for value in values:
        if not isinstance(value, str | int) or isinstance(value, bool):
            hint = (
                " YAML has yes, no, on and off as truth values: use quotes." if value in (True, False) else ""
            )
            raise ConfigError(f"{where}: text is expected (got {value!r}).{hint}")
    return tuple(str(value) for value in values)


def _classes(
    name: str, given: Mapping[str, str] | tuple[str, ...] | None, source: Source
) -> tuple[str, ...] | None:
    """The words for each label: the given ones, else those of the data's own names."""
    known = source.class_names
    if isinstance(given, tuple):
        if known is not None and given != known and sorted(given) == sorted(known):
            raise DataError(
                f"suite.catalogue.{name}.classes has the data's class names, but not in its labels' order.\n"
                f"  Expected {_list(known)}. Null takes the data's names."
            )
        return given
    if given is None:
        return None if known is None else tuple(" ".join(word.replace("_", " ").split()) for word in known)
    return _mapped(name, given, known)


def _mapped(name: str, given: Mapping[str, str], known: tuple[str, ...] | None) -> tuple[str, ...]:
    where = f"suite.catalogue.{name}.classes"
    if known is None:
        raise DataError(f"{where} maps the data's class names, but the data has none. Give a list of words.")
    for key in given:
        if key not in known:
            raise DataError(f"{where}: the data has no class '{key}'; {suggest(key, known)}")
    missing = [key for key in known if key not in given]
    if missing:
        raise DataError(f"{where} has no words for {len(missing)} of {len(known)} classes: {_list(missing)}.")
    return tuple(given[key] for key in known)


def _list(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")
