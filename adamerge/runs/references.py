"""What a run is compared with, kept in its folder: predictions of the base, the experts and two merges of them.

They tell a finished run's agreement with its experts when these are gone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from adamerge.checkpoints import open_tensors, save_tensors

FILE = "references.safetensors"
_CERTAIN = "certainty"
Predictions = dict[str, dict[str, Tensor]]


def write_references(
    folder: Path,
    predictions: Mapping[str, Mapping[str, Tensor]],
    certain: Mapping[str, Tensor],
    on: Mapping[str, str],
) -> None:
    """Args:
    predictions: {baseline: {task: (n,) classes}}.
    certain: {task: (n, classes)} the experts' probabilities, which are those of float16.
    on: {task: the identity of the pictures and the head}.
    """
    tensors = {
        f"{name}/{task}": classes.to(torch.int32)
        for name, by_task in predictions.items()
        for task, classes in by_task.items()
    }
    tensors |= {f"{_CERTAIN}/{task}": shares.half() for task, shares in certain.items()}
    save_tensors(folder / FILE, tensors, {"on": json.dumps(dict(on)), "format": "pt"})


def read_references(folder: Path, on: Mapping[str, str]) -> tuple[Predictions, dict[str, Tensor]] | None:
    """The predictions and the experts' probabilities of these tasks; None where they are not of these pictures.

    Raises:
        CheckpointError: a damaged file.
    """
    from safetensors import safe_open

    path = folder / FILE
    if not path.exists():
        return None
    tensors = open_tensors(path)
    with safe_open(path, framework="pt") as file:
        noted = json.loads((file.metadata() or {}).get("on", "{}"))
    if any(noted.get(task) != identity for task, identity in on.items()):
        return None
    found: Predictions = {}
    for key, value in tensors.items():
        name, _, task = key.partition("/")
        if task in on:
            found.setdefault(name, {})[task] = value
    certain = {task: shares.float() for task, shares in found.pop(_CERTAIN).items()}
    return {name: {task: c.long() for task, c in by_task.items()} for name, by_task in found.items()}, certain
