"""Pictures as plain files in folders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from adamerge.digests import file_digests
from adamerge.errors import DataError
from adamerge.tasks.images import Pictures
from adamerge.tasks.names import in_order, listed, suggest
from adamerge.tasks.picture import read_picture
from adamerge.tasks.sources.data_folder import folder_of
from adamerge.tasks.sources.walk import Found, class_folders, find_pictures, is_picture, no_pictures
from adamerge.tasks.task import Indices, Source

if TYPE_CHECKING:
    from PIL.Image import Image

_SPLITS = ("train", "test")
VALIDATION = "validation"


_OWN_VALIDATION = (
    "\n  The papers' validation split of this task is that folder. Take `validation` out of the source's `splits` in"
    " the catalogue to hold out a tenth of the training pictures instead."
)


class Folder(Source):
    """A folder of pictures in one of three layouts.

    - `<folder>/<split>/<class>/*.png`: training and test pictures; unlabeled without class folders.
    - `<folder>/<class>/*.png`: test pictures only.
    - `<folder>/*.png`: unlabeled test pictures.

    Labels follow the names of the class folders, those of both splits together: by value where all are numbers, else
    by their text. Class folders may have folders of their own and links to folders, whose pictures count for the
    class. Hidden files and what systems leave behind (__MACOSX, @eaDir, Thumbs.db) are no classes and no pictures.

    Args:
        folder: below `root`.
        root: folder of the folder.
        splits: the folders of the splits where they have other names, such as {train: train, test: val}. One named
            "validation" is a split of its own, in the place of a tenth of the training pictures.

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
        self.validation = VALIDATION if VALIDATION in self.names else None
        self._splits: dict[str, _Listing] = {}

    @cached_property
    def class_names(self) -> tuple[str, ...] | None:  # type: ignore[override]
        """The names of the class folders in order; None without class folders."""
        return (
            in_order(entry.name for place in self._places.values() for entry in class_folders(place)) or None
        )

    def images(self, split: str) -> Pictures:
        return Files(self._listing(split).files)

    def labels(self, split: str) -> NDArray[np.int64] | None:
        return self._listing(split).labels

    def notes(self, split: str) -> list[str]:
        return [*self._listing(split).notes, *self._beside()]

    def digests(self, split: str, rows: Indices | None = None) -> list[str]:
        return of_files(self._listing(split).files, rows, f"{self._places[split].absolute()}")

    @cached_property
    def _places(self) -> dict[str, Path]:
        """The folder of each split."""
        named = {split: self.folder / name for split, name in self.names.items()}
        places = {split: place for split, place in named.items() if place.is_dir()}
        return places or {"test": self.folder}

    def _beside(self) -> list[str]:
        """What lies beside the folders of the splits."""
        if self.folder in self._places.values():
            return []
        splits = {Path(name).parts[0] for name in self.names.values()}
        others = [entry.name for entry in class_folders(self.folder) if entry.name not in splits]
        if not others:
            return []
        return [
            f"{self.folder} has splits ({', '.join(self._places)}); left out beside them: {listed(others)}"
        ]

    def _listing(self, split: str) -> _Listing:
        if split not in self._splits:
            if split not in self._places:
                raise DataError(
                    f"{self.folder} has no {split} pictures; {suggest(split, self._places)}\n"
                    f"  Put them into {self.folder / self.names.get(split, split)}/<class>/."
                    + "".join(f" {note}." for note in self._beside())
                    + (_OWN_VALIDATION if split == VALIDATION else "")
                )
            self._splits[split] = _list(self._places[split], self.class_names)
        return self._splits[split]


@dataclass(frozen=True)
class _Listing:
    files: list[Path]
    labels: NDArray[np.int64] | None
    notes: tuple[str, ...] = ()


def of_files(files: Sequence[Path], rows: Indices | None, memory: str) -> list[str]:
    """The sha256 of the pictures' files, remembered under `memory`.

    Raises:
        DataError: a file that cannot be read.
    """
    chosen = files if rows is None else [files[row] for row in rows.tolist()]
    try:
        return file_digests(chosen, f"pictures {memory}")
    except OSError as error:
        raise DataError(
            f"{error.filename} cannot be read ({error.strerror}).\n  Replace or remove it."
        ) from error


def _list(place: Path, class_names: tuple[str, ...] | None) -> _Listing:
    entries = sorted(place.iterdir())
    loose, classes = [entry for entry in entries if is_picture(entry)], class_folders(place)
    if not classes:
        if not loose:
            raise no_pictures(place, find_pictures(place))
        return _Listing(loose, None, tuple(find_pictures(place).notes()))
    if loose:
        raise DataError(
            f"{place} has {len(loose)} pictures beside its class folders, e.g. {loose[0].name}.\n"
            "  Put each into a class folder, or all into one folder without class folders."
        )
    index = {name: i for i, name in enumerate(class_names or ())}
    found = {folder: find_pictures(folder) for folder in classes}
    labels = [index[folder.name] for folder, inside in found.items() for _ in inside.files]
    files = [file for inside in found.values() for file in inside.files]
    if not files:
        raise no_pictures(place)
    return _Listing(files, np.array(labels, np.int64), tuple(_notes(found, index)))


def _notes(found: Mapping[Path, Found], classes: Iterable[str]) -> Iterator[str]:
    """What a user may not expect of the class folders, a sentence each."""
    if empty := [folder.name for folder, inside in found.items() if not inside.files]:
        yield f"{len(empty)} class folders have no pictures, but are classes: {listed(empty)}"
    if absent := [name for name in classes if name not in {folder.name for folder in found}]:
        yield f"{len(absent)} classes of the other split have no folder here: {listed(absent)}"
    if nested := [file for folder, inside in found.items() for file in inside.files if file.parent != folder]:
        yield f"{len(nested)} pictures in folders inside the class folders count for the class, e.g. {nested[0]}"
    whole = Found()
    for inside in found.values():
        whole.unread += inside.unread
        whole.broken += inside.broken
        whole.loops += inside.loops
    yield from whole.notes()


def pictures_below(place: Path) -> list[Path]:
    """The picture files in a folder and in its folders, in order.

    Raises:
        DataError: there are none, or no such folder.
    """
    if not place.is_dir():
        raise DataError(f"There is no picture and no folder {place}.")
    found = find_pictures(place)
    if not found.files:
        raise no_pictures(place, found)
    return found.files


class Files:
    """Pictures in files, each opened when asked for."""

    def __init__(self, files: list[Path]) -> None:
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Image:
        return read_picture(self._files[index])

    def encoded(self, index: int) -> tuple[str, Path]:
        """The file's name and its place, to look at it without decoding it."""
        return str(self._files[index]), self._files[index]
