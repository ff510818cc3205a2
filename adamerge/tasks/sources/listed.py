"""Pictures in class folders with a text file per split that names the pictures, as RESISC45 comes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adamerge.errors import DataError
from adamerge.tasks.images import Pictures
from adamerge.tasks.names import in_order, suggest
from adamerge.tasks.sources.data_folder import folder_of
from adamerge.tasks.sources.folder import Files, of_files
from adamerge.tasks.sources.walk import class_folders
from adamerge.tasks.task import Indices, Source


class Listed(Source):
    """`<root>/<folder>/<class>/<class>_<number>.jpg`, and a list of file names per split.

    Args:
        folder: of the class folders, below `root`.
        lists: the list of each split, below `root`, such as {train: resisc45-train.txt, test: resisc45-test.txt}.
        root: the folder of both.

    Raises:
        DataError: no such folder; when a split is asked for, no such list, or a name in it that is no picture.
    """

    def __init__(self, folder: str, lists: Mapping[str, str], root: str | None = ".") -> None:
        above = folder_of(folder, root)
        self.folder = above / folder
        self.lists = {split: above / name for split, name in lists.items()}
        if not self.folder.is_dir():
            raise DataError(
                f"There is no folder {self.folder}; the task's class folders are expected there.\n"
                "  Set suite.data=<folder> or the environment variable ADAMERGE_DATA to the folder above it."
            )

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The names of the class folders in order."""
        return in_order(entry.name for entry in class_folders(self.folder))

    def images(self, split: str) -> Pictures:
        return Files(self._files(split))

    def labels(self, split: str) -> NDArray[np.int64]:
        index = {name: i for i, name in enumerate(self.class_names)}
        return np.array([index[file.parent.name] for file in self._files(split)], np.int64)

    def digests(self, split: str, rows: Indices | None = None) -> list[str]:
        return of_files(self._files(split), rows, f"{self.folder.absolute()} {split}")

    def _files(self, split: str) -> list[Path]:
        if split not in self.lists:
            raise DataError(f"{self.folder} has no split '{split}'; {suggest(split, self.lists)}")
        listing = self.lists[split]
        if not listing.is_file():
            raise DataError(f"There is no list {listing} of the {split} pictures in {self.folder}.")
        names = listing.read_text(encoding="utf-8").split()
        # "airport_12.jpg" lies in the folder "airport"; class names may hold underscores themselves.
        files = [self.folder / name.rpartition("_")[0] / name for name in names]
        if missing := [file for file in files if not file.is_file()]:
            raise DataError(
                f"{listing} names {len(files)} pictures, {len(missing)} of which are not there, e.g. {missing[0]}."
            )
        return files
