"""Runs a command with Hydra's own command line (--help, --cfg, --info, -m, --config-dir, completion)."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from adamerge.commands import COMMANDS
from adamerge.commands.composed import find_mistakes_in, settings_of
from adamerge.commands.config_files import with_config
from adamerge.commands.config_folders import opened_folders, register_static_rules, searched, tidy
from adamerge.commands.overrides import Typed, read_overrides, typed_options
from adamerge.errors import AdamergeError, ConfigError, RunError, from_system
from adamerge.settings.check import Plain, with_mistakes
from adamerge.settings.commands import SETTINGS
from adamerge.settings.mistakes import Mistakes
from adamerge.settings.paths import conf_dir, own_folder, register_resolvers
from adamerge.settings.sections import Section
from adamerge.stopping import Terminated, terminated

# What a search is told of a job that failed or has no finite result: shares are at least 0, no entropy reaches 20 nats.
WORST = -20.0


def run_with_hydra(command: str, words: Sequence[str], program: str | None = None) -> None:
    """Check the overrides and the config, and hand its settings to `adamerge.commands.<command>.run`.

    Args:
        command: its name in the table of commands.
        words: what follows the command; `--config <file>` stands for the words of a file.
        program: the name to use in messages and in the shell's completion.

    Raises:
        ConfigError: every mistake at once, before anything is started.
    """
    register_resolvers()
    program = program or f"adamerge {command}"
    words = with_config(command, words)
    with _as_program(program, words):
        parser = get_args_parser()
        options = parser.parse_intermixed_args(list(words))
        _refuse(options)
        if options.help:
            import_module("adamerge.commands.help").explain(command, options.overrides)
            return
        own, main = _folders(options)
        register_static_rules(*filter(None, (own, *searched(options.overrides), main)))
        if not _is_look(options) and (typed := _over_own_config(command, options)) is not None:
            _log_to_stderr()
            import_module(f"adamerge.commands.{command}").run_over(typed)
            return
        if COMMANDS[command].lenient and not _is_look(options):
            _log_to_stderr()
            import_module(f"adamerge.commands.{command}").run(*_composed(command, options))
            return
        if not (options.shell_completion or options.hydra_help):
            options.overrides = _checked(command, options)
    _log_to_stderr()
    with _as_program(program, _words(parser, options)):
        _call(command, options)


def _refuse(options: Namespace) -> None:
    modes = ("run", "multirun", "cfg", "info", "shell_completion")
    if len(chosen := [f"--{mode}" for mode in modes if getattr(options, mode)]) > 1:
        raise ConfigError(f"{' and '.join(chosen)} exclude each other.".replace("_", "-"))
    if options.experimental_rerun is not None:
        raise ConfigError(
            "--experimental-rerun opens a pickle, which may run code from the file, so it is not supported.\n"
            "  Give the options again; a run folder's config.yaml has them."
        )


def _is_look(options: Namespace) -> bool:
    return bool(options.hydra_help or options.cfg or options.info or options.shell_completion)


def _over_own_config(command: str, options: Namespace) -> list[Typed] | None:
    """What was typed, where one option names the config that the others are laid over; else None."""
    over = COMMANDS[command].over
    if over is None or not any(word.startswith(f"{over}=") for word in options.overrides):
        return None
    mistakes = Mistakes()
    typed = typed_options(options.overrides, mistakes)
    mistakes.report()
    if all(
        option.value in (None, True, False) for option in typed if option.key == over and not option.sweeps
    ):
        return None
    if options.multirun:
        raise ConfigError(f"{command} {over}=... does one thing at a time; leave out -m.")
    return typed


def _checked(command: str, options: Namespace) -> list[str]:
    """The overrides for Hydra, after every mistake has been reported."""
    mistakes = Mistakes()
    words, _ = _read(command, options, mistakes)
    mistakes.report()
    return words


def _composed(command: str, options: Namespace) -> tuple[Section | None, Mistakes]:
    """The settings of a lenient command, without what cannot be used, and all mistakes; None where nothing can be
    composed."""
    if options.multirun:
        raise ConfigError(f"{command} looks at one job; leave out -m.")
    mistakes = Mistakes()
    _, configs = _read(command, options, mistakes)
    return (with_mistakes(configs[0], SETTINGS[command]) if configs else None), mistakes


def _read(command: str, options: Namespace, mistakes: Mistakes) -> tuple[list[str], list[Plain]]:
    """The usable overrides and the resolved configs that they make; mistakes are noted. A mere look (--cfg,
    --info) may show a config with wrong values."""
    named = COMMANDS[command].word
    words = [_named(named, word) if named and _is_plain(word) else word for word in options.overrides]
    looking = options.cfg or options.info
    own, main = _folders(options)
    if own and not own.is_dir():
        raise ConfigError(f"--config-dir {own} is no folder.")
    config_name = options.config_name or str(COMMANDS[command].config)
    plain: list[Plain] = []
    with opened_folders(main, own, words) as folders:
        words, configs = read_overrides(folders, config_name, words, options.multirun or looking, mistakes)
        for config in () if looking else configs:
            with open_dict(config):
                del config["hydra"]
            plain.append(find_mistakes_in(config, command, mistakes))
    return words, plain


def _folders(options: Namespace) -> tuple[Path | None, Path]:
    """The user's config folder, and the one that takes the place of, or is, the package's."""
    if not options.config_dir and (found := own_folder()) is not None:
        options.config_dir = str(found)  # for Hydra too
    own = Path(os.path.abspath(options.config_dir)) if options.config_dir else None
    return own, Path(os.path.abspath(options.config_path)) if options.config_path else conf_dir()


def _is_plain(word: str) -> bool:
    return "=" not in word and not word.startswith("~")


def _named(key: str, word: str) -> str:
    """A plain word as the override of `key`, in quotes: it may be a path with any characters."""
    quoted = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'{key}="{quoted}"'


def _words(parser: ArgumentParser, options: Namespace) -> list[str]:
    """The command line again, flags first: Hydra's parser takes no overrides after a flag's value."""
    flags: list[str] = []
    for action in parser._actions:
        value = getattr(options, action.dest, None)
        if action.option_strings and value is True:
            flags.append(action.option_strings[0])
        elif action.option_strings and isinstance(value, str):
            flags += [action.option_strings[0], value]
    return [*flags, "--", *options.overrides]


@contextmanager
def _as_program(name: str, words: Sequence[str]) -> Iterator[None]:
    """Hydra reads sys.argv; HYDRA_FULL_ERROR lets exceptions through to `main`, which tells the user."""
    before, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = [name, *words], "1"
    try:
        yield
    finally:
        sys.argv = before
        if full is None:
            del os.environ["HYDRA_FULL_ERROR"]


def _log_to_stderr() -> None:
    """Warnings of all, and the news of adamerge and of Hydra's launchers (one line per job of a sweep)."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    for name in ("adamerge", "hydra"):
        logging.getLogger(name).setLevel(logging.INFO)


def _call(command: str, options: Namespace) -> None:
    failures: list[Exception] = []
    config_path = str(conf_dir())
    task = _task(command, failures)
    try:
        with _around(command, options):
            hydra.main(version_base="1.3", config_path=config_path, config_name=COMMANDS[command].config)(
                task
            )()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"{tidy(error)}\n  Nothing was started.") from error
    if not failures:
        return
    if not options.multirun:
        raise failures[0]
    told = (
        f"{len(failures)} job{'s' if len(failures) > 1 else ''} of the sweep failed; the reasons stand above."
    )
    if all(isinstance(failure, AdamergeError) for failure in failures):
        raise RunError(told)
    raise SystemExit(told)


def _around(command: str, options: Namespace) -> AbstractContextManager[None]:
    """What surrounds the jobs of a sweep of runs: their table at the end."""
    if not (options.multirun and command in ("train", "merge")) or _is_look(options):
        return nullcontext()
    context: AbstractContextManager[None] = import_module("adamerge.runs.sweep").sweep()
    return context


def _task(command: str, failures: list[Exception]) -> Callable[[DictConfig], Any]:
    """What Hydra calls for each job. Failures are kept, so that the other jobs of a sweep go on."""
    process = os.getpid()

    def task(config: DictConfig) -> Any:
        if os.getpid() != process:
            import_module("adamerge.runs.sweep").in_worker()
        try:
            return import_module(f"adamerge.commands.{command}").run(settings_of(config, command))
        except Exception as failure:
            if os.getpid() != process:
                raise  # a launcher's process: only Hydra can bring the exception home
            if terminated():
                raise Terminated from failure
            error = (from_system(failure) if isinstance(failure, OSError) else None) or failure
            failures.append(error)
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                _tell(error)
                return WORST  # a search goes on with the next trial
            return None

    return task


def _tell(error: Exception) -> None:
    if isinstance(error, AdamergeError):
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    else:
        traceback.print_exception(error)
