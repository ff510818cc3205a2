"""Some of a source's pictures: the validation split of the papers, and a sample for a trial."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adamerge.errors import DataError
from adamerge.tasks.corruptions import Corruption
from adamerge.tasks.images import ImageSet, Pictures
from adamerge.tasks.picture import standard
from adamerge.tasks.task import Indices, Source

_SHARE, _MOST = 0.1, 5000


def validation_rows(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(training rows, validation rows) out of `count`: the split "<Dataset>Val" of the task-vectors code.

    A tenth of the training pictures, at most 5,000, drawn with torch's generator at seed 0; of MNIST's 60,000
    pictures the first that stays for training is 36,044 (mlfoundations/task_vectors, src/datasets/registry.py).
    """
    held_out = min(int(_SHARE * count), _MOST)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).numpy()
    return order[: count - held_out], order[count - held_out :]


class Validation(Source):
    """A source whose "test" split is its validation pictures, so that test pictures stay unseen.

    These are a split of the source's own where it has one (EuroSAT's folder `val`, "EuroSATVal" of the task-vectors
    code), else held out of the training pictures.
    """

    def __init__(self, source: Source) -> None:
        self.source = source

    @property
    def class_names(self) -> tuple[str, ...] | None:  # type: ignore[override]
        return self.source.class_names

    def images(self, split: str) -> Pictures:
        own = self._own(split)
        return (
            self.source.images(own) if own else PictureSubset(self.source.images("train"), self._rows(split))
        )

    def labels(self, split: str) -> NDArray[np.int64] | None:
        own = self._own(split)
        labels = self.source.labels(own or "train")
        return labels if own or labels is None else labels[self._rows(split)]

    def identity(self, split: str, rows: Indices | None = None) -> str:
        if own := self._own(split):
            return self.source.identity(own, rows)
        chosen = self._rows(split)
        return self.source.identity("train", chosen if rows is None else chosen[rows])

    def _own(self, split: str) -> str | None:
        """The source's own split that stands for this one, where it has one for validation."""
        if split not in ("train", "test"):
            raise DataError(f"A validation split has 'train' and 'test', not '{split}'.")
        return self.source.validation and (self.source.validation if split == "test" else "train")

    def _rows(self, split: str) -> NDArray[np.int64]:
        return validation_rows(len(self.source.images("train")))[split == "test"]


class Sample(Source):
    """A source with at most `limit` test pictures, spread evenly over the split."""

    def __init__(self, source: Source, limit: int) -> None:
        self.source = source
        self.limit = limit

    @property
    def class_names(self) -> tuple[str, ...] | None:  # type: ignore[override]
        return self.source.class_names

    def images(self, split: str) -> Pictures:
        pictures = self.source.images(split)
        return PictureSubset(pictures, self._rows(len(pictures))) if split == "test" else pictures

    def labels(self, split: str) -> NDArray[np.int64] | None:
        labels = self.source.labels(split)
        return labels[self._rows(len(labels))] if labels is not None and split == "test" else labels

    def identity(self, split: str, rows: Indices | None = None) -> str:
        if split != "test" or (count := len(self.source.images(split))) <= self.limit:
            return self.source.identity(split, rows)
        chosen = self._rows(count)
        return self.source.identity(split, chosen if rows is None else chosen[rows])

    def _rows(self, count: int) -> NDArray[np.int64]:
        return np.linspace(0, count - 1, min(count, self.limit)).round().astype(np.int64)


class PictureSubset:
    """Pictures of some rows."""

    def __init__(self, pictures: Pictures, rows: NDArray[np.int64]) -> None:
        self.pictures = pictures
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.pictures[int(self.rows[index])]


class Corrupted:
    """Pictures corrupted at their own resolution, before anything is resized, as the papers' generator does."""

    def __init__(self, pictures: Pictures, corruption: Corruption) -> None:
        self.pictures = pictures
        self.corruption = corruption

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self.corruption(np.asarray(standard(self.pictures[index]).convert("RGB")), index)


class ImageSubset(ImageSet):
    """Some of a set's images as a set of their own; the whole set decodes and keeps them.

    Args:
        rows: int64 (n,), the images' numbers in the whole set.
    """

    def __init__(self, whole: ImageSet, rows: Tensor) -> None:
        self.whole = whole
        self.rows = rows
        self.size = whole.size

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, indices: Tensor | slice) -> Tensor:
        return self.whole[self.rows[indices]]

    def digest(self) -> str:
        return hashlib.sha256(self.whole.digest().encode() + self.rows.numpy().tobytes()).hexdigest()
