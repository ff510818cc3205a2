"""Files of the cache that are written in place are not removed below the process that writes them.

Two files belong together there, pixels and the marks of those that are decoded: marks that outlive their pixels would
make black pictures of them. A process opens the pair under the folder's lock and then holds the pixels' file; who
removes takes the folder's lock alone and asks whether the file is held. A lock ends with its process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_FILE = ".lock"


@contextmanager
def opening(folder: Path) -> Iterator[None]:
    """Around the opening of files that belong together; nothing is removed from the folder meanwhile."""
    with (folder / _FILE).open("a+b") as file:
        _lock(file, alone=False, wait=True)
        yield


def hold(path: Path) -> IO[bytes]:
    """The file, opened and held until it is closed."""
    file = path.open("r+b")
    _lock(file, alone=False, wait=True)
    return file


@contextmanager
def removing(folder: Path) -> Iterator[None]:
    """Around the removal of files: nothing is opened meanwhile, as far as the disk has locks; see `is_held`."""
    with (folder / _FILE).open("a+b") as file:
        _lock(file, alone=True, wait=True)
        yield


def is_held(path: Path) -> bool:
    """Whether a process holds the file, or that cannot be told."""
    with suppress(OSError), path.open("r+b") as file:
        return not _lock(file, alone=True, wait=False)
    return path.exists()


def _lock(file: IO[bytes], alone: bool, wait: bool) -> bool:
    try:
        import fcntl

        kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        fcntl.flock(file, kind | (0 if wait else fcntl.LOCK_NB))
    except (ImportError, OSError):  # Windows; another has it; the disk has no locks
        return False
    return True
