"""predictions.npz: what a model said of every test picture, from which any comparison can be computed again.

Per task: the predicted class and its probability, the label where there is one, and which rows are scored, for all
pictures of the test split in their order; and an identity of these pictures, by which runs may be paired or not. numpy
alone reads it: `np.load("predictions.npz")["<task>/predicted"]`.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adamerge.digests import digest
from adamerge.errors import RunError
from adamerge.files import write_atomically

FILE = "predictions.npz"
_PICTURES = "pictures"  # {task: identity} as JSON


@dataclass(frozen=True)
class TaskPredictions:
    """Of one task's n test pictures, in their order.

    Attributes:
        predicted: (n,) classes.
        probability: (n,) of the predicted class, as float16 has it.
        labels: (n,) classes; None where the pictures have none.
        scored: rising rows, (m,), of those that the accuracy is of.
        pictures: identity of the pictures at the model's resolution, in their order.
    """

    predicted: NDArray[np.integer]
    probability: NDArray[np.float32]
    labels: NDArray[np.integer] | None
    scored: NDArray[np.integer]
    pictures: str

    @property
    def correct(self) -> NDArray[np.bool_] | None:
        """(m,) of the scored rows; None without labels."""
        if self.labels is None:
            return None
        return np.asarray(self.predicted == self.labels)[self.scored]

    @property
    def on(self) -> str:
        """What the scores are of: pictures, labels and rows. Scores on the same may be paired."""
        labels = None if self.labels is None else self.labels.tolist()
        return digest({"pictures": self.pictures, "labels": labels, "scored": self.scored.tolist()})


Predictions = Mapping[str, TaskPredictions]


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write them compressed, classes and rows in as few bytes as they need."""
    arrays: dict[str, NDArray] = {}
    for task, own in predictions.items():
        arrays[f"{task}/predicted"] = _narrow(own.predicted)
        arrays[f"{task}/probability"] = own.probability.astype(np.float16)
        arrays[f"{task}/scored"] = _narrow(own.scored)
        if own.labels is not None:
            arrays[f"{task}/labels"] = _narrow(own.labels)
    pictures = json.dumps({task: own.pictures for task, own in predictions.items()})
    with write_atomically(path) as file:
        np.savez_compressed(file, **{_PICTURES: np.array(pictures)}, **arrays)  # type: ignore[arg-type]


def read_predictions(path: Path) -> dict[str, TaskPredictions] | None:
    """Those of a file; None where there is none.

    Raises:
        RunError: a damaged file.
    """
    if not path.exists():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            pictures = json.loads(str(arrays[_PICTURES]))
            return {
                task: TaskPredictions(
                    arrays[f"{task}/predicted"].astype(np.int64),
                    arrays[f"{task}/probability"].astype(np.float32),
                    arrays[f"{task}/labels"].astype(np.int64) if f"{task}/labels" in arrays else None,
                    arrays[f"{task}/scored"].astype(np.int64),
                    identity,
                )
                for task, identity in pictures.items()
            }
    except (OSError, ValueError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise RunError(
            f"{path} is damaged: {error}.\n  Delete it; `evaluate run={path.parent}` writes it anew."
        ) from error


def _narrow(values: NDArray[np.integer]) -> NDArray[np.integer]:
    """The same numbers in the smallest type that holds them: -1 is a label that is not known in some data sets."""
    bounds = (int(values.min(initial=0)), int(values.max(initial=0)))
    kind = np.result_type(*(np.min_scalar_type(bound) for bound in bounds))
    return values.astype(kind)
