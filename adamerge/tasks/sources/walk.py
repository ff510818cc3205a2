"""Finding picture files in folders: what counts, what systems leave there that does not, links and their loops."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from adamerge.errors import DataError

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"))
# What other programs leave among pictures: macOS's archives, network disks, Windows, Linux, Python.
_LEFT_BEHIND = frozenset(
    (
        "__macosx",
        "@eadir",
        "#recycle",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "__pycache__",
    )
)
# Pictures that are not read, beside the further formats of Pillow.
_UNREAD = frozenset(
    (".heic", ".heif", ".jxl", ".svg", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".npy")
)


@dataclass
class Found:
    """Picture files in order, and what was passed over."""

    files: list[Path] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)
    broken: list[Path] = field(default_factory=list)
    loops: list[Path] = field(default_factory=list)

    def notes(self) -> list[str]:
        """What a user may not expect, a sentence each."""
        told = []
        if self.unread:
            kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(self.unread.items()))
            told.append(f"{sum(self.unread.values())} files have a suffix that is not read: {kinds}")
        if self.broken:
            told.append(f"{len(self.broken)} links lead nowhere, e.g. {self.broken[0]}")
        if self.loops:
            told.append(
                f"{len(self.loops)} links lead back or to a folder that is counted already, e.g. {self.loops[0]}"
            )
        return told


def is_left_behind(name: str) -> bool:
    """Whether a file or folder is hidden or another program's: no class, no picture."""
    return name.startswith(".") or name.lower() in _LEFT_BEHIND


def is_picture(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not is_left_behind(file.name) and file.is_file()


def class_folders(place: Path) -> list[Path]:
    """The folders in a folder, linked ones too, in the order of their names' text."""
    return [entry for entry in _entries(place) if entry.is_dir()]


def find_pictures(place: Path) -> Found:
    """The picture files in a folder and in its folders, in order. Linked folders are followed as torchvision does, but
    each real folder counts once, and none that holds `place`."""
    found = Found()
    _walk(place, {_identity(folder) for folder in place.resolve().parents}, found)
    found.files.sort()
    return found


def no_pictures(place: Path, found: Found | None = None) -> DataError:
    """What is said of a place without pictures."""
    seen = "".join(f"; {note}" for note in ([] if found is None else found.notes()))
    return DataError(
        f"{place} has no pictures{seen}; expected files ending in {', '.join(sorted(SUFFIXES))}."
    )


def _walk(place: Path, seen: set[tuple[int, int]], found: Found) -> None:
    if (own := _identity(place)) in seen:
        found.loops.append(place)
        return
    seen.add(own)
    for entry in _entries(place):
        if entry.is_dir():
            _walk(entry, seen, found)
        elif is_picture(entry):
            found.files.append(entry)
        elif entry.is_symlink() and not entry.exists():
            found.broken.append(entry)
        elif (suffix := entry.suffix.lower()) in _UNREAD or suffix in _known_to_pillow():
            found.unread[suffix] += 1


def _entries(place: Path) -> list[Path]:
    try:
        return sorted(entry for entry in place.iterdir() if not is_left_behind(entry.name))
    except PermissionError as error:
        raise DataError(f"The folder {place} may not be read ({error.strerror}).") from error


def _identity(folder: Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _known_to_pillow() -> frozenset[str]:
    from PIL import Image

    return frozenset(Image.registered_extensions())
