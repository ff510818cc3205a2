"""A command line's config and settings, composed as the program does, without running it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from adamerge.commands.composed import settings_of
from adamerge.commands.config_folders import register_static_rules
from adamerge.settings import conf_dir, register_resolvers


@contextmanager
def opened() -> Iterator[None]:
    """Around `compose`: the package's config folder, with all that its YAMLs use."""
    register_resolvers()
    register_static_rules()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield


def config(command: str, *words: str) -> DictConfig:
    """What Hydra composes."""
    with opened():
        return compose(command, list(words))


def settings(command: str, *words: str) -> Any:
    """What the command runs with."""
    return settings_of(config(command, *words), command)
