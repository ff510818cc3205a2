"""What made a run folder: code, command line, machine, time, versions. A record: no id knows it, no run reads it."""

from __future__ import annotations

import json
import os
import platform
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from adamerge.errors import RunError
from adamerge.files import atomic_write_text

FILE = "provenance.json"
FINISHED = "finished"
_PACKAGES = ("adamerge", "torch", "torchvision", "pytorch-lightning", "open_clip_torch", "numpy")
_MORE = ("safetensors", "timm", "transformers", "hydra-core", "omegaconf", "pydantic", "pillow")
_PATIENCE = 20.0  # seconds that git may take


@dataclass(frozen=True)
class Checkout:
    """The git checkout that code ran from.

    Args:
        commit: its full hash.
        changed: whether the code or the YAMLs beside it differed from the commit, new files included.
    """

    commit: str
    changed: bool


@dataclass(frozen=True)
class Sitting:
    """A process's work in a run folder; an interrupted run that went on has several.

    Args:
        started: local time with its offset from UTC, ISO 8601.
        command: the command line; None where it is not known (a sweep's worker process).
        checkout: of adamerge; None where it is installed otherwise.
        ended: None while the process works, and of one that was killed.
        outcome: "finished", or the name of the error.
    """

    started: str
    host: str
    process: int
    command: str | None
    python: str
    system: str
    packages: dict[str, str] = field(default_factory=dict)
    checkout: Checkout | None = None
    ended: str | None = None
    outcome: str | None = None


def begin(folder: Path) -> None:
    """Add this process's sitting to the folder's."""
    _write(folder, [*read_sittings(folder), this_sitting()])


def this_sitting() -> Sitting:
    """This process's, begun now."""
    package = Path(__file__).parent.parent
    return Sitting(
        started=_now(),
        host=socket.gethostname(),
        process=os.getpid(),
        command=_command(),
        python=platform.python_version(),
        system=platform.platform(),
        packages=versions() | _installed(),
        checkout=checkout_of(package, package.parent / "conf"),
    )


def ended(begun: Sitting) -> Sitting:
    """A sitting whose work is done now."""
    return replace(begun, ended=_now(), outcome=FINISHED)


@contextmanager
def ending(folder: Path) -> Iterator[None]:
    """Around a process's work in the folder: notes how and when the sitting that it began ended, if it began one."""
    try:
        yield
    except BaseException as error:
        _end(folder, type(error).__name__)
        raise
    _end(folder, FINISHED)


def read_sittings(folder: Path) -> list[Sitting]:
    """The sittings in the order of time; none of a folder from before they were noted, or where the note is damaged:
    nothing depends on it."""
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return [
            Sitting(**{**one, "checkout": None if one["checkout"] is None else Checkout(**one["checkout"])})
            for one in content["sittings"]
        ]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def versions() -> dict[str, str]:
    """Of the packages that numbers depend on first of all."""
    return {name: version(name) for name in _PACKAGES}


def checkout_of(package: Path, *beside: Path) -> Checkout | None:
    """The checkout that holds a package's files; None where git does not track them: an installed package may lie
    within somebody else's repository.

    Args:
        beside: what else counts as its code.
    """
    if _git(package, "ls-files", "--error-unmatch", "--", "__init__.py") is None:
        return None
    commit = _git(package, "rev-parse", "HEAD")
    changes = _git(package, "status", "--porcelain", "--", str(package), *map(str, beside))
    return None if commit is None or changes is None else Checkout(commit.strip(), bool(changes.strip()))


def _git(folder: Path, *words: str) -> str | None:
    """What git says; None where it fails, or there is none."""
    # Of a git command that runs this as a hook, the environment names another repository.
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(
            ("git", *words),
            cwd=folder,
            env={**own, "GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        return done.stdout if done.returncode == 0 else None
    return None


def _command() -> str | None:
    program, *words = sys.argv
    words = [word for word in words if word != "--"]  # put between flags and overrides for Hydra's parser
    return f"{program} {shlex.join(words)}".strip() if program.startswith("adamerge ") else None


def _installed() -> dict[str, str]:
    found = {}
    for name in _MORE:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _end(folder: Path, outcome: str) -> None:
    sittings = read_sittings(folder)
    if not sittings or sittings[-1].ended is not None:
        return
    *before, last = sittings
    if (last.host, last.process) != (socket.gethostname(), os.getpid()):
        return
    with suppress(OSError, RunError):  # a full disk is said by what fails for it, not by this
        _write(folder, [*before, replace(last, ended=_now(), outcome=outcome)])


def _write(folder: Path, sittings: list[Sitting]) -> None:
    content = {"sittings": [asdict(sitting) for sitting in sittings]}
    atomic_write_text(folder / FILE, json.dumps(content, indent=2) + "\n")


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
