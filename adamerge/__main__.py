"""`python -m adamerge <command> ...`: picks the command. Imports nothing heavy, so that help answers at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches

from adamerge import __version__
from adamerge.commands import COMMANDS
from adamerge.errors import AdamergeError, ConfigError

_USAGE = "usage: python -m adamerge <command> [key=value ...]\n\n{commands}\n\n{more}\n"
_MORE = "python -m adamerge <command> --help lists a command's options; show methods lists what can be trained."


def main(words: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 when the job is done, 2 after a mistake in the input, 130 when interrupted."""
    arguments = list(sys.argv[1:] if words is None else words)
    try:
        _run(arguments)
    except AdamergeError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted. The same command goes on from the last checkpoint.\n")
        sys.exit(130)


def _run(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(usage())
        return
    if arguments[0] == "--version":
        sys.stdout.write(f"adamerge {__version__}\n")
        return
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        close = get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"there is {', '.join(COMMANDS)}."
        raise ConfigError(f"No command '{name}'; {hint}")
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors reach `main`, which prints them without a traceback
    if COMMANDS[name].config is None:
        from importlib import import_module

        import_module(f"adamerge.commands.{name}").run(rest)
        return
    from adamerge.settings.hydra import run_with_hydra

    run_with_hydra(name, rest)


def usage() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items())
    return _USAGE.format(commands=commands, more=_MORE)


if __name__ == "__main__":
    main()
