"""The sha256 of plain data, and of files, read once per machine: remembered by path, size, times and inode.

sha256 and not a faster hash: it is what a `.sha256` beside a file and the Hub's names of its blobs say, so that a
file has one identity however that became known.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from adamerge.cache_folder import cache_dir
from adamerge.errors import RunError
from adamerge.files import atomic_write_text

log = logging.getLogger(__name__)
_THREADS = 4
_BLOCK = 1 << 20
# A file that changed within this many nanoseconds might change again with the same time of change.
_SETTLED_NS = 2_000_000_000

Stamp = list[int]


def digest(plain: Any) -> str:
    """The sha256 of plain data, in hexadecimal digits."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=dict).encode()).hexdigest()


def stamp(file: Path) -> Stamp:
    """What tells cheaply that a file is unchanged: size, time of modification and of change (ns), inode.

    The time of change catches what keeps the time of modification: `cp -p`, `rsync -t`, `mv`.
    """
    status = file.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def settled(found: Stamp) -> bool:
    """Whether a stamp is old enough that a later change would show in it."""
    return time.time_ns() - max(found[1], found[2]) > _SETTLED_NS


def sha256_of(file: Path) -> str:
    """The sha256 of all of a file, in hexadecimal digits."""
    result = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK):
            result.update(block)
    return result.hexdigest()


def file_digests(files: Sequence[Path], memory: str) -> list[str]:
    """The sha256 of each file. Unchanged files are not read again.

    Args:
        memory: what the files are, under which their digests are remembered.

    Raises:
        OSError: a file that cannot be read.
    """
    known = _read(memory)

    def digest(file: Path) -> tuple[Stamp, str]:
        before = stamp(file)
        if (remembered := known.get(str(file))) and remembered[:-1] == before:
            return before, remembered[-1]
        return before, sha256_of(file)

    with ThreadPoolExecutor(_THREADS) as threads:
        found = list(threads.map(digest, files))
    new = {
        str(file): [*before, value]
        for file, (before, value) in zip(files, found, strict=True)
        if known.get(str(file)) != [*before, value] and settled(before) and stamp(file) == before
    }
    if new:
        _write(memory, {**known, **new})
    return [value for _, value in found]


def remembered(key: str, make: Callable[[], list[str]]) -> list[str]:
    """The digests that `make` returns, computed once. `key` holds all that they depend on."""
    known: list[str] | None = _read(key).get("digests")
    if known is None:
        known = make()
        _write(key, {"digests": known})
    return known


def _path(memory: str) -> Path:
    return cache_dir() / "digests" / f"{hashlib.sha256(memory.encode()).hexdigest()[:24]}.json"


def _read(memory: str) -> dict[str, Any]:
    try:
        content = json.loads(_path(memory).read_text(encoding="utf-8"))
        return content["known"] if content["of"] == memory else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # nothing is known yet, or it is damaged: everything is read again


def _write(memory: str, known: dict[str, Any]) -> None:
    path = _path(memory)
    try:
        os.makedirs(path.parent, exist_ok=True)
        atomic_write_text(path, json.dumps({"of": memory, "known": known}))
    except (OSError, RunError) as error:
        log.debug("Digests are not remembered: %s", error)  # slower, but nothing is wrong
