"""Pictures as plain files in folders."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from adamerge.errors import DataError
from adamerge.tasks.images import Pictures
from adamerge.tasks.sources.places import folder_of
from adamerge.tasks.task import Source, suggest

if TYPE_CHECKING:
    from PIL.Image import Image

_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"))
_SPLITS = ("train", "test")


class Folder(Source):
    """A folder of pictures in one of three layouts.

    - `<folder>/<split>/<class>/*.png`: training and test pictures; unlabeled without class folders.
    - `<folder>/<class>/*.png`: test pictures only.
    - `<folder>/*.png`: unlabeled test pictures.

    Labels follow the sorted names of the class folders, those of both splits together. Class folders may have
    folders of their own. As in the reference, an orientation tag (EXIF) does not turn a picture.

    Args:
        folder: below `root`.
        root: folder of the folder.
        splits: the folders of the splits where they have other names, such as {train: train, test: val}.

    Raises:
        DataError: no such folder, no pictures; when a picture is asked for, that it cannot be read.
    """

    def __init__(self, folder: str, root: str | None = ".", splits: Mapping[str, str] | None = None) -> None:
        self.folder = folder_of(folder, root) / folder
        self.names = dict(splits or {split: split for split in _SPLITS})
        if not self.folder.is_dir():
            raise DataError(
                f"There is no folder {self.folder}; the task's pictures are expected there.\n"
                "  Set suite.data=<folder> or the environment variable ADAMERGE_DATA to the folder above it."
            )
        self._splits: dict[str, _Listing] = {}

    @cached_property
    def class_names(self) -> tuple[str, ...] | None:  # type: ignore[override]
        """The sorted names of the class folders; None without class folders."""
        names = {entry.name for place in self._places.values() for entry in _folders(place)}
        return tuple(sorted(names)) or None

    def images(self, split: str) -> Pictures:
        return Files(self._listing(split).files)

    def labels(self, split: str) -> NDArray[np.int64] | None:
        return self._listing(split).labels

    def identity(self, split: str) -> str:
        return identity_of(self._listing(split).files)

    @cached_property
    def _places(self) -> dict[str, Path]:
        """The folder of each split."""
        named = {split: self.folder / name for split, name in self.names.items()}
        places = {split: place for split, place in named.items() if place.is_dir()}
        return places or {"test": self.folder}

    def _listing(self, split: str) -> _Listing:
        if split not in self._splits:
            if split not in self._places:
                raise DataError(
                    f"{self.folder} has no {split} pictures; {suggest(split, self._places)}\n"
                    f"  Put them into {self.folder / split}/<class>/."
                )
            self._splits[split] = _list(self._places[split], self.class_names)
        return self._splits[split]


@dataclass(frozen=True)
class _Listing:
    files: list[Path]
    labels: NDArray[np.int64] | None


def identity_of(files: Sequence[Path]) -> str:
    """Of files by name, size and time of change: pictures are not read for it."""
    result = hashlib.sha256()
    for file in files:
        status = file.stat()
        result.update(f"{file} {status.st_size} {status.st_mtime_ns}\n".encode())
    return result.hexdigest()


def _list(place: Path, class_names: tuple[str, ...] | None) -> _Listing:
    loose = [entry for entry in sorted(place.iterdir()) if is_picture(entry)]
    classes = _folders(place)
    if not classes and loose:
        return _Listing(loose, None)
    if loose:
        raise DataError(
            f"{place} has {len(loose)} pictures beside its class folders, e.g. {loose[0].name}.\n"
            "  Put each into a class folder, or all into one folder without class folders."
        )
    index = {name: i for i, name in enumerate(class_names or ())}
    found = [
        (file, index[entry.name])
        for entry in classes
        for file in sorted(entry.rglob("*"))
        if is_picture(file)
    ]
    if not found:
        raise DataError(f"{place} has no pictures; expected files ending in {', '.join(sorted(_SUFFIXES))}.")
    return _Listing([file for file, _ in found], np.array([label for _, label in found], np.int64))


def _folders(place: Path) -> list[Path]:
    return sorted(entry for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def pictures_below(place: Path) -> list[Path]:
    """The picture files in a folder and in its folders, in order.

    Raises:
        DataError: there are none, or no such folder.
    """
    if not place.is_dir():
        raise DataError(f"There is no picture and no folder {place}.")
    found = [file for file in sorted(place.rglob("*")) if is_picture(file)]
    if not found:
        raise DataError(f"{place} has no pictures; expected files ending in {', '.join(sorted(_SUFFIXES))}.")
    return found


def read_picture(file: Path) -> Image:
    """Decode a file.

    Raises:
        DataError: it cannot be read as a picture.
    """
    from PIL import Image

    try:
        with Image.open(file) as picture:
            picture.load()
            return picture
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} cannot be read as a picture ({error}).\n  Replace or remove it.") from error


def is_picture(file: Path) -> bool:
    return file.suffix.lower() in _SUFFIXES and not file.name.startswith(".") and file.is_file()


class Files:
    """Pictures in files, each opened when asked for."""

    def __init__(self, files: list[Path]) -> None:
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Image:
        return read_picture(self._files[index])
