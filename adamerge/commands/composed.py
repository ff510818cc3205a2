"""From Hydra's composed config to a command's typed settings: the only place where a DictConfig is read."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from adamerge.settings.check import Plain, find_mistakes, place, validate
from adamerge.settings.commands import SETTINGS
from adamerge.settings.mistakes import Mistakes
from adamerge.settings.sections import Section
from adamerge.settings.terms import look_up_terms


def settings_of(config: DictConfig, command: str) -> Section:
    """The settings that a command runs with.

    Raises:
        ConfigError: all mistakes.
    """
    mistakes = Mistakes()
    plain = resolved(config, mistakes)
    mistakes.report()
    return validate(plain, SETTINGS[command])


def find_mistakes_in(config: DictConfig, command: str, mistakes: Mistakes) -> Plain:
    """Note every mistake of a composed config; returns what of it can be resolved."""
    plain = resolved(config, mistakes)
    find_mistakes(plain, SETTINGS[command], mistakes)
    return plain


def resolved(config: DictConfig, mistakes: Mistakes) -> Plain:
    """The config as plain data, the terms of a sum of objectives looked up; values that are missing or cannot be
    resolved are noted and left out."""
    plain: Plain = _resolved(config, "", mistakes)
    look_up_terms(plain, mistakes)
    return plain


def _resolved(node: Any, where: str, mistakes: Mistakes) -> Any:
    """A node as plain data; values that are missing or cannot be resolved are noted and left out."""
    if not isinstance(node, DictConfig | ListConfig):
        return node
    if node._is_none():
        return None
    plain: dict[Any, Any] = {}
    items: Any = node
    for key in items if isinstance(node, DictConfig) else range(len(node)):
        at = place(where, key)
        if OmegaConf.is_missing(items, key):
            mistakes.add(at, f"has no value; give {at}=...")
            continue
        try:
            child = items[key]
        except InterpolationToMissingValueError:
            mistakes.places.add(at)  # what it refers to is noted itself
        except OmegaConfBaseException as error:
            mistakes.add(at, f"{_first_line(error)} (it says {items._get_node(key)!s}).")
        else:
            plain[key] = _resolved(child, at, mistakes)
    return plain if isinstance(node, DictConfig) else list(plain.values())


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")
