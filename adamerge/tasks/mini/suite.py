"""The embedded suite: eight small classification tasks, drawn rather than downloaded."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from adamerge.errors import DataError
from adamerge.tasks.drawing import SIZE
from adamerge.tasks.mini import (
    aerial,
    digits,
    land_cover,
    scenes,
    signs,
    street_numbers,
    textures,
    vehicles,
)
from adamerge.tasks.names import suggest
from adamerge.tasks.task import Indices, Source

Domain = Literal["task", "web"]
Images = NDArray[np.uint8]
Labels = NDArray[np.int64]

_NATURES: dict[str, ModuleType] = {
    "digits": digits,
    "street_numbers": street_numbers,
    "signs": signs,
    "textures": textures,
    "land_cover": land_cover,
    "aerial": aerial,
    "scenes": scenes,
    "vehicles": vehicles,
}
CLASSES: dict[str, tuple[str, ...]] = {task: nature.CLASSES for task, nature in _NATURES.items()}
SPLITS = {"train": 10000, "test": 1000}
# A change of any picture needs a new number here, so that old numbers are not compared with new pictures.
EDITION = 1
_CHUNK = 128


@dataclass(frozen=True)
class Style:
    """How realistic a domain's pictures are: the realism of each is uniform from `low` to `high`."""

    low: float
    high: float


TASK_STYLE = Style(0.75, 1.0)
# The knob of the domain gap: the nearer `high` is to 1, the better the web prepares for the task.
WEB_STYLE = {
    "digits": Style(0.0, 0.2),
    "street_numbers": Style(0.0, 0.1),
    "signs": Style(0.0, 0.15),
    "textures": Style(0.0, 0.45),
    "land_cover": Style(0.0, 0.2),
    "aerial": Style(0.0, 0.2),
    "scenes": Style(0.0, 0.2),
    "vehicles": Style(0.0, 0.25),
}


def render(task: str, labels: Labels, rng: np.random.Generator, domain: Domain = "task") -> Images:
    """Draw one picture (n, 32, 32, 3) for each class index in `labels` (n,).

    In the task domain of `digits` the pictures are real scans, drawn at random from the training split.

    Raises:
        DataError: an unknown task.
    """
    nature = _NATURES[_known(task, _NATURES, "task")]
    if task == "digits" and domain == "task":
        return _random_scans(labels, rng)
    style = TASK_STYLE if domain == "task" else WEB_STYLE[task]
    images = np.empty((len(labels), SIZE, SIZE, 3), np.uint8)
    for start in range(0, len(labels), _CHUNK):
        part = np.asarray(labels[start : start + _CHUNK])
        realism = style.low + (style.high - style.low) * rng.random(len(part), np.float32)
        pixels = nature.paint(part, rng, realism).pixels
        np.clip(pixels, 0, 1, out=pixels)
        pixels *= 255
        pixels += 0.5
        images[start : start + len(part)] = pixels.astype(np.uint8).transpose(0, 2, 3, 1)
    return images


def _random_scans(labels: Labels, rng: np.random.Generator) -> Images:
    images, digit, test = digits.scans()
    chosen = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        where = labels == label
        chosen[where] = rng.choice(np.flatnonzero((digit == label) & ~test), int(where.sum()))
    return images[chosen]


class Mini(Source):
    """One task of the embedded suite: RGB pictures of 32x32, the same every time, nothing downloaded.

    Args:
        task: one of `CLASSES`.

    Raises:
        DataError: an unknown task or split.
    """

    def __init__(self, task: str) -> None:
        self.task = _known(task, _NATURES, "task")
        self.class_names = CLASSES[task]
        self._splits: dict[str, tuple[Images, Labels]] = {}

    def images(self, split: str) -> Images:
        """All pictures of a split, uint8 (n, 32, 32, 3)."""
        return self._split(split)[0]

    def labels(self, split: str) -> Labels:
        """The class index of each picture, int64 (n,)."""
        return self._split(split)[1]

    def identity(self, split: str, rows: Indices | None = None) -> str:
        """By the edition of the generator: nothing is drawn for it."""
        _known(split, SPLITS, "split")
        chosen = "" if rows is None else hashlib.sha256(rows.astype(np.int64).tobytes()).hexdigest()
        return hashlib.sha256(f"mini {EDITION} {self.task} {split} {chosen}".encode()).hexdigest()

    def pretraining_batch(self, n: int, rng: np.random.Generator, size: int = SIZE) -> tuple[Images, Labels]:
        """New pictures of the web domain, as many of every class as `n` allows; they depend on `rng` alone.

        Raises:
            DataError: a size other than 32, the only one that the pictures are drawn at.
        """
        if size != SIZE:
            raise DataError(f"The suite mini is drawn at {SIZE} px, not {size}; use backbone=mini.")
        labels = _balanced(n, len(CLASSES[self.task]), rng)
        return render(self.task, labels, rng, "web"), labels

    def _split(self, split: str) -> tuple[Images, Labels]:
        _known(split, SPLITS, "split")
        if split not in self._splits:
            self._splits[split] = self._scans(split) if self.task == "digits" else self._drawn(split)
        return self._splits[split]

    def _scans(self, split: str) -> tuple[Images, Labels]:
        images, labels, test = digits.scans()
        chosen = test if split == "test" else ~test
        return images[chosen], labels[chosen]

    def _drawn(self, split: str) -> tuple[Images, Labels]:
        rng = np.random.Generator(np.random.PCG64([EDITION, zlib.crc32(f"{self.task}/{split}".encode())]))
        labels = _balanced(SPLITS[split], len(CLASSES[self.task]), rng)
        return render(self.task, labels, rng, "task"), labels


def _balanced(n: int, classes: int, rng: np.random.Generator) -> Labels:
    """Class indices (n,) in random order; their counts differ by at most 1, which are larger is random."""
    return rng.permutation(rng.permutation(classes)[np.arange(n) % classes])


def _known(name: str, names: Iterable[str], what: str) -> str:
    if name not in names:
        raise DataError(f"The suite mini has no {what} '{name}'; {suggest(name, names)}")
    return name
