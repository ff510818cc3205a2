"""What a model is compared with, kept in a run folder: predictions of the base, the experts and two merges of them.

They tell a finished run's agreement with its experts when these are gone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from adamerge.checkpoints import open_tensors, save_tensors
from adamerge.digests import digest
from adamerge.merging import Head
from adamerge.models.heads import head_digest
from adamerge.tasks.images import ImageSet
from adamerge.tracking.references import FILE

EXPERTS = "individual"
_CERTAIN = "certainty"


@dataclass(frozen=True)
class References:
    """Attributes:
    predicted: {baseline: {task: (n,) classes}}; empty where the experts are not known.
    certain: {task: (n, classes)} the experts' probabilities, which are those of float16.
    """

    predicted: Mapping[str, Mapping[str, Tensor]]
    certain: Mapping[str, Tensor]

    @property
    def experts(self) -> Mapping[str, Tensor]:
        """{task: (n,)} what each task's own expert predicts."""
        return self.predicted.get(EXPERTS, {})


UNKNOWN = References({}, {})


def compared_on(images: Mapping[str, ImageSet], heads: Mapping[str, Head]) -> dict[str, str]:
    """{task: what predictions of an encoder depend on beside it}: the pictures and the head."""
    return {
        task: digest({"images": own.digest(), "head": head_digest(heads[task])})
        for task, own in images.items()
    }


def write_references(folder: Path, references: References, on: Mapping[str, str]) -> None:
    """Write them into a run folder, with what they are of (`compared_on`)."""
    tensors = {
        f"{name}/{task}": classes.to(torch.int32)
        for name, by_task in references.predicted.items()
        for task, classes in by_task.items()
    }
    tensors |= {f"{_CERTAIN}/{task}": shares.half() for task, shares in references.certain.items()}
    save_tensors(folder / FILE, tensors, {"on": json.dumps(dict(on)), "format": "pt"})


def read_references(folder: Path, on: Mapping[str, str]) -> References:
    """Those of a run folder, of these tasks; `UNKNOWN` where it has none, or they are not of these pictures and heads.

    Raises:
        CheckpointError: a damaged file.
    """
    from safetensors import safe_open

    path = folder / FILE
    if not path.exists():
        return UNKNOWN
    tensors = open_tensors(path)
    with safe_open(path, framework="pt") as file:
        noted = json.loads((file.metadata() or {}).get("on", "{}"))
    if any(noted.get(task) != identity for task, identity in on.items()):
        return UNKNOWN
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, task = key.partition("/")
        if task in on:
            found.setdefault(name, {})[task] = value
    certain = {task: shares.float() for task, shares in found.pop(_CERTAIN).items()}
    predicted = {name: {task: c.long() for task, c in by_task.items()} for name, by_task in found.items()}
    return References(predicted, certain)
