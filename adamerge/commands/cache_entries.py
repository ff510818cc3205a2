"""What lies in the cache, entry by entry: its files, size, last use, and whether it is being written."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from adamerge.cache_folder import KINDS
from adamerge.cache_locks import is_held

_DAY = 24 * 60 * 60
_TEMPORARY = re.compile(r"\.(.+)\.\w+")  # the name beside its target that a file or folder is written under
_DIGEST = re.compile(r"([0-9a-f]{24})(\..+)")
_WHOLE = {".json", ".safetensors", ".safetensors.sha256", ".u8", ".done", ".sha256"}
_IN_PLACE = ".u8"


@dataclass(frozen=True)
class File:
    """A file of an entry.

    Args:
        size: bytes.
        used: seconds since the epoch of the last reading or writing, as far as the disk notes it.
        written: of the last writing.
        whole: False for a temporary name.
    """

    path: Path
    size: int
    used: float
    written: float
    whole: bool


@dataclass(frozen=True)
class Entry:
    """What is made, used and removed together.

    Args:
        name: unique within its kind.
        files: in the order in which they can be removed at any moment: what vouches for another goes first.
    """

    kind: str
    name: str
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def used(self) -> float:
        return max(file.used for file in self.files)

    def at_work(self) -> bool:
        """Whether a process writes it. A temporary file that nobody wrote into for a day is a killed process's."""
        return any(
            (not file.whole and time.time() - file.written < _DAY)
            or (file.path.suffix == _IN_PLACE and is_held(file.path))
            for file in self.files
        )


def entries(cache: Path, kind: str) -> list[Entry]:
    """The entries of a kind, by name. Files whose names adamerge does not give are none; links are not followed."""
    found: dict[str, list[File]] = {}
    for path in _files(cache / kind):
        parts = path.relative_to(cache / kind).parts
        plain = [_TEMPORARY.fullmatch(part) for part in parts]
        named = [part if match is None else match[1] for part, match in zip(parts, plain, strict=True)]
        name, known = (_digested if KINDS[kind].again else _made_here)(named)
        if name is None:
            continue
        with suppress(FileNotFoundError):  # renamed or removed meanwhile
            status = path.lstat()
            used = max(status.st_atime, status.st_mtime)
            whole = known and not any(plain)
            found.setdefault(name, []).append(File(path, status.st_size, used, status.st_mtime, whole))
    return [
        Entry(kind, name, tuple(sorted(files, key=lambda file: _last(file.path))))
        for name, files in sorted(found.items())
    ]


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder, onerror=_unreadable):
        yield from (Path(parent, name) for name in names)


def _unreadable(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # there is none yet, or no more
        raise error


def _digested(parts: list[str]) -> tuple[str | None, bool]:
    """(the digest that names an entry, whether the file is more than a temporary one)."""
    match = _DIGEST.fullmatch(parts[0])
    return (match[1], match[2] in _WHOLE) if match and len(parts) == 1 else (None, False)


def _made_here(parts: list[str]) -> tuple[str | None, bool]:
    """<suite>/<backbone>/base, or <suite>/<backbone>/experts/<name> and the like, be it a file or a folder."""
    name = "/".join(parts[: 3 if parts[2:3] == ["base"] else 4])
    return name.removesuffix(".sha256"), True


def _last(path: Path) -> tuple[bool, bool, str]:
    """Marks of what is decoded before the pixels, weights before their sum: without it nothing looks damaged."""
    return path.suffix == _IN_PLACE, path.suffix == ".sha256", path.name
