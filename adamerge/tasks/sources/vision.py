"""The classification datasets of torchvision."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adamerge.errors import ConfigError, DataError
from adamerge.tasks.images import Pictures
from adamerge.tasks.names import suggest
from adamerge.tasks.picture import standard, unreadable
from adamerge.tasks.sources.data_folder import folder_of
from adamerge.tasks.sources.folder import of_files
from adamerge.tasks.task import Indices, Source

# Where torchvision looks below the root, for the datasets that papers on merging use most.
_PLACES = {
    "MNIST": "MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte",
    "SVHN": "{train,test}_32x32.mat",
    "GTSRB": "gtsrb/GTSRB/{Training,Final_Test/Images}/ and gtsrb/GT-final_test.csv",
    "DTD": "dtd/dtd/{images,labels}/",
    "EuroSAT": "eurosat/2750/<class>/",
    "SUN397": "SUN397/<letter>/<class>/",
    "StanfordCars": "stanford_cars/{cars_train/,cars_test/,devkit/,cars_test_annos_withlabels.mat}",
}
_HELD_OUT = 0.1


class Torchvision(Source):
    """A class of torchvision.datasets.

    Where the class has no splits of its own (EuroSAT, SUN397), a tenth of each label's pictures, drawn with a
    fixed seed, is the test split and the rest the training split.

    Args:
        name: such as "SVHN".
        root: the folder that torchvision calls root.
        download: fetch what is not there; off unless asked for.
        splits: the class's names of the splits, such as {train: trainval, test: test} for OxfordIIITPet.
        options: further options of the class, such as {split: digits} for EMNIST.

    Raises:
        ConfigError: no such class.
        DataError: when a split is asked for and the files are not there.
    """

    def __init__(
        self,
        name: str,
        root: str | None,
        download: bool = False,
        splits: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.root = folder_of(f"torchvision's {name}", root)
        self.download = download
        self.names = dict(splits or {"train": "train", "test": "test"})
        self.options = dict(options or {})
        self._class = _find(name)
        self._splits: dict[str, tuple[Any, NDArray[np.int64]]] = {}
        self._decoded: dict[str, list[str]] = {}

    @cached_property
    def class_names(self) -> tuple[str, ...] | None:  # type: ignore[override]
        """The class's own `classes`; some, such as SVHN and GTSRB, have none."""
        names = getattr(self._split("test")[0], "classes", None)
        return None if names is None else tuple(str(name) for name in names)

    def images(self, split: str) -> Pictures:
        return _Rows(*self._split(split), self.name)

    def labels(self, split: str) -> NDArray[np.int64]:
        dataset, chosen = self._split(split)
        return _targets(dataset)[chosen]

    def digests(self, split: str, rows: Indices | None = None) -> list[str]:
        dataset, own = self._split(split)
        chosen = own if rows is None else own[rows]
        if (files := _files(dataset)) is not None:
            return of_files(files, chosen, f"{self.root.absolute()} {self.name} {split}")
        if (pixels := getattr(dataset, "data", None)) is not None and len(pixels) == len(dataset):
            return [hashlib.sha256(np.asarray(pixels[row]).tobytes()).hexdigest() for row in chosen.tolist()]
        # Decoded once: what this process has read does not change any more.
        if split not in self._decoded:
            self._decoded[split] = super().digests(split)
        known = self._decoded[split]
        return known if rows is None else [known[row] for row in rows.tolist()]

    def _split(self, split: str) -> tuple[Any, NDArray[np.int64]]:
        """The dataset and the rows of it that form the split."""
        if split not in self._splits:
            if split not in self.names:
                raise DataError(f"{self.name} has no split '{split}'; {suggest(split, self.names)}")
            chooses = self._choice(split)
            dataset = self._open(chooses)
            rows = np.arange(len(dataset)) if chooses else _held_out(_targets(dataset), split == "test")
            if len(rows) == 0:
                raise DataError(f"{self.name} below {self.root} has no {split} pictures.")
            self._splits[split] = dataset, rows
        return self._splits[split]

    def _choice(self, split: str) -> dict[str, Any]:
        """How the class is told which split; empty where it has none."""
        parameters = inspect.signature(self._class).parameters
        if "train" in parameters or "split" in self.options:  # EMNIST's own `split` is another thing
            return {"train": split == "train"}
        return {"split": self.names[split]} if "split" in parameters else {}

    def _open(self, choice: dict[str, Any]) -> Any:
        download = {"download": True} if self.download else {}
        try:
            return self._class(str(self.root), **choice, **self.options, **download)
        except TypeError as error:
            raise ConfigError(
                f"torchvision.datasets.{self.name} does not take these options: {error}."
            ) from error
        except (RuntimeError, OSError, ValueError) as error:
            place = f" It expects {self.root / _PLACES[self.name]}." if self.name in _PLACES else ""
            raise DataError(
                f"torchvision.datasets.{self.name} could not be opened below {self.root}: {error}\n"
                f" {place} Put the files there, set root=<folder>, or download=true to fetch them."
            ) from error


def _find(name: str) -> Callable[..., Any]:
    from torchvision import datasets

    if name not in datasets.__all__:
        raise ConfigError(f"torchvision.datasets has no class '{name}'; {suggest(name, datasets.__all__)}")
    return getattr(datasets, name)  # type: ignore[no-any-return]


def _targets(dataset: Any) -> NDArray[np.int64]:
    """The label of each picture, without decoding where the dataset keeps a list."""
    for attribute in ("targets", "labels", "_labels"):
        values = getattr(dataset, attribute, None)
        if values is not None and len(values) == len(dataset):
            return np.asarray(values, np.int64)
    samples = getattr(dataset, "_samples", None)
    if samples is not None and len(samples) == len(dataset):
        return np.array([label for _, label in samples], np.int64)
    return np.array([dataset[index][1] for index in range(len(dataset))], np.int64)


def _files(dataset: Any) -> list[Path] | None:
    """The file of each picture; None where the dataset does not keep a list of them."""
    for attribute in ("_image_files", "_images", "_samples", "samples"):
        values = getattr(dataset, attribute, None)
        if isinstance(values, Sequence) and len(values) == len(dataset):
            files = [value[0] if isinstance(value, tuple) else value for value in values]
            if all(isinstance(file, str | Path) for file in files):
                return [Path(file) for file in files]
    return None


def _held_out(labels: NDArray[np.int64], test: bool) -> NDArray[np.int64]:
    """Rows of the test part (a tenth of each class, at least one picture) or of the rest, in order."""
    rng = np.random.Generator(np.random.PCG64(0))
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        held[rows[: max(1, round(_HELD_OUT * len(rows)))]] = True
    return np.flatnonzero(held == test)


class _Rows:
    """The pictures of some rows, each decoded when asked for."""

    def __init__(self, dataset: Any, rows: NDArray[np.int64], name: str) -> None:
        self._dataset = dataset
        self._rows = rows
        self._name = name

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Any:
        row = int(self._rows[index])
        name = f"Picture {row} of torchvision's {self._name}"
        try:
            picture = self._dataset[row][0]
        except (OSError, SyntaxError, ValueError) as error:
            raise unreadable(name, error) from error
        return standard(picture, name)
