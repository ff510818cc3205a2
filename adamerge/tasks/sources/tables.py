"""Pictures in tables, by way of the `datasets` library: Parquet files and the Hugging Face Hub."""

from __future__ import annotations

import glob
import hashlib
import json
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adamerge.digests import remembered, stamp
from adamerge.errors import DataError
from adamerge.tasks.names import in_order, suggest
from adamerge.tasks.sources.data_folder import folder_of
from adamerge.tasks.sources.rows import Rows
from adamerge.tasks.task import Indices, Source

if TYPE_CHECKING:
    from datasets import Dataset
    from pyarrow import ChunkedArray


class _Table(Source):
    """A column of pictures and a column of labels: class indices or names."""

    def __init__(self, image: str, label: str | None, splits: Sequence[str]) -> None:
        self.image = image
        self.label = label
        self.splits = tuple(splits)
        self._tables: dict[str, Dataset] = {}

    @abstractmethod
    def _open(self, split: str) -> Dataset:
        """The whole table of a split."""

    @abstractmethod
    def _place(self, split: str) -> str:
        """The split's place, for messages."""

    @cached_property
    def class_names(self) -> tuple[str, ...] | None:  # type: ignore[override]
        """The names in the table's ClassLabel feature, or the names in order where the labels are names."""
        from datasets import ClassLabel

        if self.label is None or not self.splits:
            return None
        feature = self._column("test" if "test" in self.splits else self.splits[0], self.label)
        if isinstance(feature, ClassLabel):
            return tuple(feature.names)
        if not _holds_names(feature):
            return None
        # All splits together: a class may be absent from one of them.
        return in_order(str(name) for split in self.splits for name in self._table(split).unique(self.label))

    def images(self, split: str) -> Rows:
        from datasets import Image as ImageFeature

        feature = self._column(split, self.image)
        pictures = self._table(split).select_columns([self.image])
        if not isinstance(feature, ImageFeature) or not feature.decode:
            try:
                pictures = pictures.cast_column(self.image, ImageFeature())
            except (TypeError, ValueError, NotImplementedError) as error:
                raise DataError(
                    f"Column '{self.image}' of {self._place(split)} holds no pictures but {feature}.\n"
                    "  Expected encoded bytes, or {bytes, path}. Name the column of pictures with image=..."
                ) from error
        return Rows(pictures, self.image, self._place(split))

    def labels(self, split: str) -> NDArray[np.int64] | None:
        if self.label is None:
            return None
        feature = self._column(split, self.label)
        known = self.class_names or ()
        names = getattr(feature, "names", known)
        if tuple(names) != known:
            different = next(pair for pair in zip_longest(names, known) if pair[0] != pair[1])
            raise DataError(
                f"{self._place(split)} numbers its classes otherwise than {self._place('test')}, e.g. "
                f"'{different[0]}', expected '{different[1]}'.\n  Write both with the same ClassLabel."
            )
        values = self._values(split, self.label)
        if _holds_names(feature):
            index = {name: i for i, name in enumerate(known)}
            return np.array([index[name] for name in values.to_pylist()], np.int64)
        labels = values.to_numpy()
        if not np.issubdtype(labels.dtype, np.integer):
            raise DataError(
                f"Column '{self.label}' of {self._place(split)} holds no labels but {values.type}.\n"
                "  Expected whole numbers or class names. Name the column of labels with label=..."
            )
        # Public test sets whose labels are kept secret hold -1 everywhere.
        return None if (labels == -1).all() else labels.astype(np.int64)

    def digests(self, split: str, rows: Indices | None = None) -> list[str]:
        """The sha256 of each picture's bytes: that of the same picture in a file."""
        table = self._table(split)
        # What `datasets` hashed of the files, and what it keeps of them.
        kept = [(file["filename"], stamp(Path(file["filename"]))) for file in table.cache_files]
        chosen = None if rows is None else hashlib.sha256(rows.tobytes()).hexdigest()
        key = json.dumps(["table", getattr(table, "_fingerprint", None), kept, self.image, chosen])
        pictures = self.images(split)
        make = partial(pictures.digests, range(len(pictures)) if rows is None else rows.tolist())
        return remembered(key, make) if kept else make()

    def _values(self, split: str, column: str) -> ChunkedArray:
        values = self._table(split).with_format("arrow")[column][:]
        if values.null_count:
            row = values.is_null().to_pylist().index(True)
            raise DataError(
                f"{self._place(split)} has {values.null_count} rows without a label, e.g. row {row}.\n"
                "  Every picture of a split needs one; label=null takes the pictures alone."
            )
        return values

    def _table(self, split: str) -> Dataset:
        if split not in self._tables:
            if split not in self.splits:
                raise DataError(
                    f"No {split} split is given; {suggest(split, self.splits)}\n"
                    "  Add it to the options of the task's source."
                )
            table = self._open(split)
            if len(table) == 0:
                raise DataError(f"{self._place(split)} has no rows; at least one picture is needed.")
            self._tables[split] = table
        return self._tables[split]

    def _column(self, split: str, column: str) -> Any:
        """The column's feature."""
        features = self._table(split).features
        if column in features:
            return features[column]
        option = "image" if column == self.image else "label"
        alone = "; label=null takes the pictures alone" if option == "label" else ""
        raise DataError(
            f"{self._place(split)} has no column '{column}'; {suggest(column, features)}\n"
            f"  Its columns are {', '.join(features)}. Name the right one with {option}=...{alone}."
        )


class Parquet(_Table):
    """Parquet files with a column of encoded pictures, as the Hugging Face Hub serves them.

    The files are opened by way of the `datasets` library's cache (HF_DATASETS_CACHE).

    Args:
        train: file, or pattern such as "train-*.parquet", below `root`.
        test: the same for the test split.
        image: column of pictures: bytes, or a struct of bytes and path.
        label: column of class indices or class names; None for pictures without labels.
        root: folder of the files.

    Raises:
        DataError: also later, when a split is asked for: no such file, an unknown column, a damaged picture.
    """

    def __init__(
        self,
        train: str | None = None,
        test: str | None = None,
        image: str = "image",
        label: str | None = "label",
        root: str | None = ".",
    ) -> None:
        patterns = {"train": train, "test": test}
        self.patterns = {
            split: str(folder_of(path, root) / path) for split, path in patterns.items() if path is not None
        }
        # The root is a folder's name as it stands, whatever brackets are in it.
        self._globs = {
            split: str(Path(glob.escape(str(folder_of(path, root)))) / path)
            for split, path in patterns.items()
            if path is not None
        }
        super().__init__(image, label, tuple(self.patterns))

    def _open(self, split: str) -> Dataset:
        from datasets import load_dataset
        from datasets.exceptions import DatasetGenerationError

        pattern = self.patterns[split]
        # A file whose own name has brackets goes before what they would stand for.
        files = [pattern] if Path(pattern).is_file() else sorted(glob.glob(self._globs[split]))
        if not files:
            raise DataError(
                f"No Parquet file {pattern} (split {split}).\n"
                "  Set suite.data=<folder> or the environment variable ADAMERGE_DATA to the folder that "
                f"holds it, or name the file with {split}=..."
            )
        try:
            return load_dataset("parquet", data_files={split: [*map(_escaped, files)]}, split=split)
        except (DatasetGenerationError, OSError, ValueError) as error:
            reason = error.__cause__ or error
            if _without_rows(files):
                raise DataError(
                    f"{pattern} (split {split}) has no rows; at least one picture is needed."
                ) from error
            raise DataError(
                f"{pattern} (split {split}) cannot be read as Parquet: {reason}\n  Get the file again."
            ) from error

    def _place(self, split: str) -> str:
        return self.patterns[split]


class Hub(_Table):
    """A dataset of the Hugging Face Hub, or a folder in one of the layouts that `datasets` knows.

    Args:
        id: such as "tanganke/gtsrb"; taken from the cache (HF_HOME).
        config: such as "cropped_digits" of "ufldl-stanford/svhn".
        splits: which of the dataset's splits serve as "train" and "test".
        image: column of pictures.
        label: column of class indices or class names; None for pictures without labels.
        download: fetch what the cache does not have; off unless asked for.

    Raises:
        DataError: when a split is asked for and the dataset, split or column is not there.
    """

    def __init__(
        self,
        id: str,
        config: str | None = None,
        splits: Mapping[str, str] | None = None,
        image: str = "image",
        label: str | None = "label",
        download: bool = False,
    ) -> None:
        self.id = id
        self.download = download
        self.config = config
        self.names = dict(splits or {"train": "train", "test": "test"})
        super().__init__(image, label, tuple(self.names))

    def _open(self, split: str) -> Dataset:
        from datasets import load_dataset
        from datasets.exceptions import DatasetsError

        try:
            with _offline(not self.download):
                return load_dataset(self.id, self.config, split=self.names[split])
        except (DatasetsError, OSError, ValueError, RuntimeError) as error:
            advice = "Check id, config and splits, and the network." if self.download else _FETCH
            raise DataError(f"{self._place(split)} could not be opened: {error}\n  {advice}") from error

    def _place(self, split: str) -> str:
        config = f" ({self.config})" if self.config else ""
        return f"Hub dataset {self.id}{config}, split {self.names[split]}"


_FETCH = (
    "Check id, config and splits. download=true fetches what is not on this machine; or take suite.origin=torchvision "
    "or suite.origin=folders with suite.data=<folder>."
)


@contextmanager
def _offline(active: bool) -> Iterator[None]:
    """Inside, `datasets` looks at its cache alone. It has this as a setting of the process only."""
    import datasets.config

    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = before or active
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _escaped(file: str) -> str:
    """A file's name for `datasets`, which takes every name for a pattern."""
    return re.sub(r"([\[*?])", r"[\1]", file)


def _without_rows(files: Sequence[str]) -> bool:
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import read_metadata

    try:
        return not any(read_metadata(file).num_rows for file in files)
    except (ArrowInvalid, OSError):
        return False


def _holds_names(feature: Any) -> bool:
    return getattr(feature, "dtype", None) in ("string", "large_string")
