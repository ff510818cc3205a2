"""Checking the words of the command line against the config folder, before Hydra stops at the first mistake."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from adamerge.settings.check import find_mistakes
from adamerge.settings.mistakes import Mistakes, near


def check_overrides(config_name: str, words: Sequence[str], folders: Sequence[Path]) -> None:
    """Find unreadable overrides, unknown groups' choices and unknown keys, all at once.

    Args:
        config_name: primary config, e.g. "train".
        words: the overrides as typed.
        folders: config folders, the user's own first.

    Raises:
        ConfigError: naming each mistake and the near names.
    """
    mistakes = Mistakes()
    overrides = _parse(words, mistakes)
    groups = [o for o in overrides if _is_group(o.key_or_group, folders)]
    good = [o for o in groups if _check_choice(o, folders, mistakes)]
    keys = [o for o in overrides if o not in groups]
    composed = _compose(config_name, good, folders) if keys else None
    if composed is not None:
        good += [o for o in keys if _check_key(o, composed, folders, mistakes)]
    if mistakes.lines:
        # The rest of the config is checked too, so that the user mends everything in one go.
        composed = _compose(config_name, good, folders)
        if composed is not None:
            find_mistakes(composed, mistakes)
    mistakes.report()


def _parse(words: Sequence[str], mistakes: Mistakes) -> list[Override]:
    parsed: list[Override] = []
    parser = OverridesParser.create()
    for word in words:
        try:
            parsed.append(parser.parse_override(word))
        except HydraException as error:
            reason = str(error).splitlines()[0]
            mistakes.add(word, f"not readable as key=value ({reason}); quote values that hold spaces, commas or '='.")
    return parsed


def choices(group: str, folders: Sequence[Path]) -> list[str]:
    """Names of the YAML files of a config group."""
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def _is_group(name: str, folders: Sequence[Path]) -> bool:
    return any((folder / name).is_dir() for folder in folders)


def _check_choice(override: Override, folders: Sequence[Path], mistakes: Mistakes) -> bool:
    """Whether every chosen value names a file of the group."""
    if override.is_delete():
        return True
    known = choices(override.key_or_group, folders)
    values = list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]
    good = True
    for value in _flat(values):
        name = value.text if isinstance(value, QuotedString) else value
        if name is not None and str(name) not in known:
            mistakes.add(override.key_or_group, f"no '{name}'; {near(str(name), known)}")
            good = False
    return good


def _flat(values: Any) -> list[Any]:
    return [v for value in values for v in (value if isinstance(value, list) else [value])]


def _compose(config_name: str, overrides: Sequence[Override], folders: Sequence[Path]) -> DictConfig | None:
    """The config with these overrides (sweeps left out); None where that fails, which Hydra reports itself."""
    GlobalHydra.instance().clear()
    words = [o.input_line or "" for o in overrides if not o.is_sweep_override()]
    extra = [f"hydra.searchpath=[{','.join(f'file://{f}' for f in folders[:-1])}]"] if len(folders) > 1 else []
    try:
        with initialize_config_dir(str(folders[-1]), version_base="1.3"):
            return compose(config_name, overrides=words + extra)
    except HydraException:
        return None
    finally:
        GlobalHydra.instance().clear()


def _check_key(override: Override, config: DictConfig, folders: Sequence[Path], mistakes: Mistakes) -> bool:
    """Whether the config has the key that is overridden."""
    key = override.key_or_group
    if override.type in (OverrideType.ADD, OverrideType.FORCE_ADD) or key.split(".")[0] == "hydra":
        return True
    node: Any = config
    walked: list[str] = []
    for part in key.split("."):
        if not isinstance(node, DictConfig):
            mistakes.add(key, f"{'.'.join(walked)} is a value, it has no parts.")
            return False
        if part not in node:
            names = [str(name) for name in node]
            if not walked:
                names += [f.name for folder in folders for f in folder.iterdir() if f.is_dir() and f.name != "hydra"]
            owner = ".".join(walked) or "the config"
            mistakes.add(key, f"{owner} has no '{part}'; {near(part, set(names))}")
            return False
        walked.append(part)
        node = None if OmegaConf.is_missing(node, part) else node._get_node(part)
        if isinstance(node, DictConfig) and node._is_none():
            return True
    return True
