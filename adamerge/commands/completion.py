"""Tab completion of `adamerge <command> ...` in a shell, by Hydra's completion of the command's options.

For bash: eval "$(adamerge -sc install=bash)"
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from adamerge.commands import COMMANDS


def complete(words: Sequence[str]) -> None:
    """Answer the shell: names of commands for the first word, a command's options after it.

    The shell gives the line typed so far in COMP_LINE. Hydra knows no commands: it is taken out.
    """
    program, _, typed = os.environ.get("COMP_LINE", "").lstrip().partition(" ")
    command, space, rest = typed.lstrip().partition(" ")
    asked = any(word.startswith("query=") for word in words)
    if asked and not space:
        sys.stdout.write(" ".join(name for name in COMMANDS if name.startswith(command)) + "\n")
        return
    if asked and (command not in COMMANDS or COMMANDS[command].config is None):
        return
    os.environ["COMP_LINE"] = f"{program} {rest}"
    from adamerge.commands.hydra_entry import run_with_hydra

    run_with_hydra(command if asked else "train", words, program="adamerge")
