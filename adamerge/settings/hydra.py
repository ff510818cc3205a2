"""Runs a command with Hydra's own command line (--help, --cfg, --info, -m, --config-dir, completion)."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from adamerge.commands import COMMANDS
from adamerge.errors import AdamergeError, ConfigError, RunError
from adamerge.settings.overrides import check_overrides
from adamerge.settings.paths import conf_dir, register_resolvers


def run_with_hydra(command: str, words: Sequence[str]) -> None:
    """Check the overrides, compose the config, and hand it to `adamerge.commands.<command>.run`.

    Raises:
        ConfigError: every mistake in the overrides at once, or Hydra's own complaint.
    """
    config_name = COMMANDS[command].config
    assert config_name is not None
    register_resolvers()
    words = _named(command, words)
    check_overrides(config_name, _positional(words), [*_own_folders(words), conf_dir()])

    failures: list[AdamergeError] = []

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=config_name)
    def task(config: DictConfig) -> None:
        try:
            import_module(f"adamerge.commands.{command}").run(config)
        except AdamergeError as error:  # one job of a sweep does not stop the others
            failures.append(error)
            if "-m" in words or "--multirun" in words:
                sys.stderr.write(f"{type(error).__name__}: {error}\n")

    arguments, sys.argv = sys.argv, [f"adamerge {command}", *words]
    try:
        task()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"{error}\n  Nothing was started.") from error
    finally:
        sys.argv = arguments
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise RunError(f"{len(failures)} jobs failed; each says why above.")


def _named(command: str, words: Sequence[str]) -> list[str]:
    """`bench adamerging` is short for `bench name=adamerging`."""
    if command == "bench" and words and not words[0].startswith("-") and "=" not in words[0]:
        return [f"name={words[0]}", *words[1:]]
    return list(words)


_WITH_VALUE = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--package", "-p", "--cfg", "-c")


def _positional(words: Sequence[str]) -> list[str]:
    """The overrides among the words: neither flags nor a flag's value."""
    return [
        word
        for before, word in zip(["", *words], words, strict=False)
        if not word.startswith("-") and before not in _WITH_VALUE
    ]


def _own_folders(words: Sequence[str]) -> list[Path]:
    """The user's config folder (--config-dir), if given."""
    for before, word in zip(["", *words], words, strict=False):
        if before in ("--config-dir", "-cd"):
            return [Path(os.path.abspath(word))]
        if word.startswith("--config-dir="):
            return [Path(os.path.abspath(word.partition("=")[2]))]
    return []
