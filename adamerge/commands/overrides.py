"""Checking the command line against the config folders, before Hydra stops at the first mistake."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, OverrideType, QuotedString, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from adamerge.commands.config_folders import ConfigFolders, tidy
from adamerge.hints import near
from adamerge.settings.mistakes import Mistakes

# A path needs no quotes, though Hydra's grammar wants them for letters such as é and for "{task}".
_PATH = re.compile(r"[^\[{'\",=][^'\",=]*/[^'\",=]*")

# Sections that take more options than their YAMLs name; the whole config's check knows which.
_OPEN = ("trainer", "logger")


def read_overrides(
    folders: ConfigFolders, config_name: str, words: Sequence[str], sweeping: bool, mistakes: Mistakes
) -> tuple[list[str], list[DictConfig]]:
    """Note unreadable overrides, unknown choices and unknown keys.

    Args:
        folders: the config folders.
        config_name: primary config, e.g. "train".
        words: the overrides as typed.
        sweeping: whether several values of an option mean several jobs.

    Returns:
        The words for Hydra (an option of a component needs no "+", whether the YAML names it or not), and the
        configs to check: one with the first value of each sweep, one more for every other value.
    """
    typed = _parse([part for word in words for part in _named(word)], mistakes)
    groups = [o for o in typed if folders.choices(o.key_or_group)]
    keys = [o for o in typed if o not in groups]
    good = [o for o in groups if _check_choice(o, folders, mistakes)]
    good, config = _compose(folders, config_name, good, mistakes)
    if config is None:
        return [], []
    if not (sweeping or str(config.hydra.mode).endswith("MULTIRUN")):
        good = [o for o in good if _check_single(o, mistakes)]
        keys = [o for o in keys if _check_single(o, mistakes)]
    good += [o for o in keys if _check_key(o, config, folders, mistakes)]
    good, config = _compose(folders, config_name, good, mistakes)
    if config is None:
        return [], []
    if parameters := _parameters(config, typed, folders, mistakes):
        good, config = _compose(folders, config_name, good + parameters, mistakes)
    configs = [config, *_variants(folders, config_name, good, config, mistakes)] if config is not None else []
    return [o.input_line or "" for o in typed if o in good], configs


@dataclass(frozen=True)
class Typed:
    """An option as it was typed: its dotted key and value; whether it has several values, or takes a key away."""

    key: str
    value: Any
    sweeps: bool
    deletes: bool


def typed_options(words: Sequence[str], mistakes: Mistakes) -> list[Typed]:
    """What was typed, without a config to compose it into; what cannot be read is noted."""
    return [
        Typed(
            o.key_or_group, None if o.is_sweep_override() else o.value(), o.is_sweep_override(), o.is_delete()
        )
        for o in _parse(words, mistakes)
    ]


def _named(word: str) -> list[str]:
    """`backbone=timm:<name>` or `open_clip:<name>`, no files of the group, as the options that they stand for."""
    key, _, value = word.partition("=")
    library, _, name = value.partition(":")
    if key != "backbone" or library not in ("timm", "open_clip") or not name:
        return [word]
    model = value if library == "timm" else name
    return ["backbone=own", f"backbone.model={model}", f"backbone.name={name}"]


def _parse(words: Sequence[str], mistakes: Mistakes) -> list[Override]:
    parsed: list[Override] = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals and not word.startswith("~"):
            mistakes.add(repr(word), "is not key=value.")
            continue
        quoted = '{}="{}"'.format(key, value.replace("\\", "\\\\").replace('"', '\\"'))
        for attempt in (word, quoted) if _PATH.fullmatch(value) else (word,):
            try:
                parsed += OverridesParser.create().parse_overrides([attempt])
                break
            except HydraException:
                continue
        else:
            mistakes.add(key, f"cannot read {value!r}; if that is one text, write '{quoted}'.")
    return parsed


def _parameters(
    config: DictConfig, typed: Sequence[Override], folders: ConfigFolders, mistakes: Mistakes
) -> list[Override]:
    """The sweep that a config (an experiment, say) asks for itself, less what is typed."""
    given = OmegaConf.select(config, "hydra.sweeper.params") or {}
    replaced = {o.key_or_group for o in typed}
    found = _parse([f"{key}={value}" for key, value in given.items() if key not in replaced], mistakes)
    return [
        o
        for o in found
        if (
            _check_choice(o, folders, mistakes)
            if folders.choices(o.key_or_group)
            else _check_key(o, config, folders, mistakes)
        )
    ]


def _check_single(override: Override, mistakes: Mistakes) -> bool:
    if not override.is_sweep_override():
        return True
    key, _, value = str(override.input_line).partition("=")
    mistakes.add(
        key, f"has several values ({value}); add -m to run each, or write '{key}=[{value}]' for a list."
    )
    return False


def _values(override: Override, folders: ConfigFolders) -> list[Any]:
    """The values of an override, as Hydra's grammar writes them; of a range the first and the last."""
    if not override.is_sweep_override():
        return [override.value()]
    value = override.value()
    if isinstance(value, IntervalSweep):
        return [value.start, value.end]
    override.config_loader = folders.loader
    found = [_text(v) for v in override.sweep_iterator()]
    return [found[0], found[-1]] if isinstance(value, RangeSweep) and found else found


def _text(value: Any) -> Any:
    return value.text if isinstance(value, QuotedString) else value


def _check_choice(override: Override, folders: ConfigFolders, mistakes: Mistakes) -> bool:
    """Whether every chosen value names a file of the group."""
    group = override.key_or_group
    known = folders.choices(group)
    if override.is_delete():
        mistakes.add(f"~{group}", f"cannot be left out; there is {', '.join(known)}.")
        return False
    values = _values(override, folders)
    names = [name for value in values for name in (value if isinstance(value, list) else [value])]
    wrong = ["null" if name is None else name for name in names if str(name) not in known]
    for name in wrong:
        mistakes.add(group, f"no {group.rpartition('/')[2]} '{name}'; {near(str(name), known)}")
    return not wrong


def _compose(
    folders: ConfigFolders, config_name: str, overrides: list[Override], mistakes: Mistakes
) -> tuple[list[Override], DictConfig | None]:
    """The config with these overrides. Where that fails, the culprits are noted and left out."""
    try:
        return overrides, folders.compose(config_name, _first(overrides, folders))
    except (HydraException, OmegaConfBaseException):
        pass
    good = []
    for override in overrides:
        try:
            folders.compose(config_name, _first([override], folders))
        except (HydraException, OmegaConfBaseException) as error:
            mistakes.add(override.get_key_element(), tidy(error))
        else:
            good.append(override)
    try:
        return good, folders.compose(config_name, _first(good, folders))
    except (HydraException, OmegaConfBaseException) as error:
        mistakes.add(config_name, tidy(error))
        return good, None


def _first(overrides: Sequence[Override], folders: ConfigFolders) -> list[str]:
    """The overrides as words, with the first value of each sweep."""
    return [
        _with_value(o, _values(o, folders)[0]) if o.is_sweep_override() else str(o.input_line)
        for o in overrides
    ]


def _with_value(override: Override, value: Any) -> str:
    return f"{override.get_key_element()}={Override._get_value_element_as_str(value)}"


def _variants(
    folders: ConfigFolders,
    config_name: str,
    overrides: list[Override],
    config: DictConfig,
    mistakes: Mistakes,
) -> Iterator[DictConfig]:
    """One config for every further value of each sweep, the others at their first: a sum, no product."""
    first = _first(overrides, folders)
    for index, override in enumerate(overrides):
        for value in _values(override, folders)[1:]:
            if not folders.choices(override.key_or_group):
                changed = deepcopy(config)
                OmegaConf.update(changed, override.key_or_group, value, force_add=True)
                yield changed
                continue
            words = [*first[:index], _with_value(override, value), *first[index + 1 :]]
            try:
                yield folders.compose(config_name, words)
            except (HydraException, OmegaConfBaseException) as error:
                mistakes.add(_with_value(override, value), tidy(error))


def _check_key(override: Override, config: DictConfig, folders: ConfigFolders, mistakes: Mistakes) -> bool:
    """Whether the config has the key, or a component that may take it (the override then adds it)."""
    key = override.key_or_group
    if override.type is OverrideType.FORCE_ADD:
        return True
    node: Any = config
    walked: list[str] = []
    is_open = False
    for part in key.split("."):
        place = ".".join(walked)
        if isinstance(node, ListConfig) and part.isdigit() and int(part) < len(node):
            return True
        if not isinstance(node, DictConfig) or node._is_none():
            mistakes.add(key, f"{place} is {OmegaConf.select(config, place)!r} here, it has no options.")
            return False
        is_open = is_open or "_target_" in node or place in _OPEN
        if part not in list(node):  # `in` alone overlooks keys without a value
            if override.is_add():
                return True
            if is_open and override.type is OverrideType.CHANGE:
                override.type = OverrideType.FORCE_ADD
                override.input_line = f"++{override.input_line}"
                return True
            mistakes.add(key, _no_such_key(key, part, place, node, config, folders))
            return False
        walked.append(part)
        node = node._get_node(part)
    if override.is_add():
        mistakes.add(f"+{key}", f"is there already; leave out the '+' to change it: {key}=...")
        return False
    return True


def _no_such_key(
    key: str, part: str, place: str, node: DictConfig, config: DictConfig, folders: ConfigFolders
) -> str:
    # What a suite offers to single methods is nothing that is set by hand.
    elsewhere = [
        path for path in _paths(config) if path.endswith(f".{key}") and not path.startswith("suite.tuned.")
    ]
    if elsewhere:
        return f"no such option here; did you mean {' or '.join(map(repr, sorted(elsewhere)[:3]))}?"
    names = [str(name) for name in node if name != "hydra"]
    if not place:
        return f"no such option; {near(part, dict.fromkeys([*names, *folders.groups()]))}"
    return f"{place} has no such option; {near(part, names, otherwise='it has {}.')}"


def _paths(node: Any, above: str = "") -> Iterator[str]:
    """The dotted paths of a config without Hydra's own part."""
    if not isinstance(node, DictConfig) or node._is_none():
        return
    for name in node:
        if above or name != "hydra":
            path = f"{above}.{name!s}" if above else str(name)
            yield path
            yield from _paths(node._get_node(name), path)
