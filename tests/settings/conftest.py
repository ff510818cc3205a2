"""Composing and checking a command line as the program does, without running it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, open_dict

from adamerge.commands.composed import find_mistakes_in, settings_of
from adamerge.commands.config_folders import ConfigFolders, opened_folders
from adamerge.commands.overrides import read_overrides
from adamerge.settings.mistakes import Mistakes
from adamerge.settings.paths import conf_dir, register_resolvers

Check = Callable[..., list[str]]


@pytest.fixture
def folders() -> Iterator[ConfigFolders]:
    register_resolvers()
    with opened_folders(conf_dir(), None, ()) as opened:
        yield opened


@pytest.fixture
def compose(folders: ConfigFolders) -> Callable[..., DictConfig]:
    """compose("train", "seed=1"): the config as a command receives it."""

    def composed(command: str, *words: str) -> DictConfig:
        config = folders.compose(command, words)
        with open_dict(config):
            del config["hydra"]
        return config

    return composed


@pytest.fixture
def settings(compose: Callable[..., DictConfig]) -> Callable[..., Any]:
    """settings("train", "seed=1"): what a command runs with."""
    return lambda command, *words: settings_of(compose(command, *words), command)


@pytest.fixture
def check(folders: ConfigFolders) -> Check:
    """The mistakes of a command line of `train`, one line each."""

    def lines(*words: str, sweeping: bool = False, command: str = "train") -> list[str]:
        mistakes = Mistakes()
        _, configs = read_overrides(folders, command, words, sweeping, mistakes)
        for config in configs:
            with open_dict(config):
                del config["hydra"]
            find_mistakes_in(config, command, mistakes)
        return mistakes.lines

    return lines


@pytest.fixture
def own(tmp_path: Path) -> Callable[[str, str], Path]:
    """own("method/mine", yaml): writes into a config folder of the user's."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / "own" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return tmp_path / "own"

    return write
