"""`python -m adamerge <command> ...`: picks the command. Nothing heavy is imported: help is instant."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from adamerge import __version__
from adamerge.commands import COMMANDS
from adamerge.errors import AdamergeError, ConfigError, from_system
from adamerge.hints import near
from adamerge.stopping import Terminated, sigterm_raises

_USAGE = "usage: python -m adamerge <command> [key=value ...]\n\n{commands}\n\n{more}\n"
_MORE = "adamerge <command> --help lists a command's options, adamerge show methods what can be trained."


def main(words: Sequence[str] | None = None) -> None:
    """Run one command. Exit code 0: the job is done, 2: a mistake in the input, 130: interrupted, 143: terminated."""
    try:
        with sigterm_raises():
            _run(list(sys.argv[1:] if words is None else words))
    except AdamergeError as error:
        _mistake(error)
    except KeyboardInterrupt:
        _interrupted()
    except Terminated:
        sys.stderr.write("Terminated by SIGTERM.\n")
        sys.exit(128 + signal.SIGTERM)
    except SystemExit as stop:
        # Lightning turns Ctrl-C into an exit of its own.
        if isinstance(stop.__context__, KeyboardInterrupt):
            _interrupted()
        raise
    except BrokenPipeError:
        # The reader (head, a pager) has gone; Python must not complain when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if (told := from_system(error)) is None:
            raise
        _mistake(told)


def _mistake(error: AdamergeError) -> NoReturn:
    sys.stderr.write(f"{type(error).__name__}: {error}\n")
    sys.exit(2)


def _interrupted() -> NoReturn:
    sys.stderr.write("Interrupted.\n")
    sys.exit(130)


def _run(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(usage())
    elif "--version" in arguments:
        sys.stdout.write(f"adamerge {__version__}\n")
    elif arguments[0] in ("-sc", "--shell-completion"):
        from adamerge.commands.completion import complete

        complete(arguments)
    else:
        _run_command(arguments[0], arguments[1:])


def _run_command(name: str, words: list[str]) -> None:
    if name not in COMMANDS:
        raise ConfigError(f"No command '{name}'; {near(name, COMMANDS, most=1)}")
    if COMMANDS[name].config is None:
        import_module(f"adamerge.commands.{name}").run(words)
        return
    from adamerge.commands.hydra_entry import run_with_hydra

    run_with_hydra(name, words)


def usage() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items())
    return _USAGE.format(commands=commands, more=_MORE)


if __name__ == "__main__":
    main()
