"""A run folder belongs to one process at a time: a lock that ends with its process, however that ends."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from adamerge.errors import RunError

FILE = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Around the work in a folder.

    Where the system or the disk has no such locks (Windows, some network disks), nothing is locked.

    Raises:
        RunError: another process works in the folder; it is named.
    """
    path = folder / FILE
    file = _take(path)
    if file is None:
        raise RunError(
            f"{folder} is in use by another run: {_holder(path)}.\n"
            "  Wait until it has finished: the same command then shows its result. Another seed is another run."
        )
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # while it is held: nobody takes a file that is about to go
        file.close()


def holder(folder: Path) -> str | None:
    """The process that works in a folder, in words; None where none does."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        import fcntl

        with path.open(encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(path)
    except (ImportError, OSError):
        return None
    return None


def _take(path: Path) -> IO[str] | None:
    """The open and locked file, with this process's name in it; None where another has the lock."""
    try:
        import fcntl
    except ImportError:  # Windows
        return path.open("a+", encoding="utf-8")
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        except OSError:
            return file  # the disk has no locks
        # The one who had it may have removed the file between our opening and locking it.
        if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:
            file.truncate(0)
            since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
            json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": since}, file)
            file.flush()
            return file
        file.close()


def _holder(path: Path) -> str:
    try:
        who = json.loads(path.read_text(encoding="utf-8"))
        return f"process {who['pid']} on {who['host']}, since {who['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "which one is not known"
