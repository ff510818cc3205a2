"""Frozen things are computed once: what a frozen encoder makes of each image is recorded and looked up."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from adamerge.evaluation.predicting import in_precision
from adamerge.methods.base import Method
from adamerge.objectives.objective import Representation
from adamerge.tasks.images import ImageSet
from adamerge.tasks.stream import Stream


@dataclass(frozen=True)
class Recording:
    """The representation of some of a task's images.

    Attributes:
        rows: (images,) where each image's entry stands in `parts`; -1 where it was not recorded.
        parts: tensors (recorded, ...).
    """

    rows: Tensor
    parts: Representation

    def __getitem__(self, indices: Tensor) -> Representation:
        rows = self.rows[indices]
        return tuple(part[rows] for part in self.parts)


@torch.no_grad()
def record(
    method: Method,
    task: str,
    images: ImageSet,
    indices: Tensor,
    *,
    device: torch.device,
    batch_size: int,
    precision: str = "32-true",
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Tensor]:
    """`method.encode` of the images at `indices`, one pass, as named tensors ready to save."""
    method = method.to(device).eval()
    collected: list[Representation] = []
    with method.merged_once(task if method.by_task else None):
        for part in indices.split(batch_size):
            with in_precision(precision, torch.device(device)):
                encoded = method.encode(images[part].to(device), task)
            collected.append(tuple(x.float().cpu() for x in encoded))
            progress(len(part))
    return {f"{i:03}": torch.cat(parts) for i, parts in enumerate(zip(*collected, strict=True))}


@torch.no_grad()
def encoder_digest(method: Method, task: str) -> str:
    """sha256 of the encoder that a task's images pass through: every tensor's name and bytes."""
    result = hashlib.sha256()
    merged = {**method.pool.fixed, **method.merge(task if method.by_task else None)}
    for key in sorted(merged):
        result.update(key.encode())
        result.update(merged[key].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return result.hexdigest()


def shown_images(stream: Stream, task: str) -> Tensor:
    """Which of a task's images the stream shows at all, sorted; none where it ends before the task's turn."""
    shown = [stream.indices(task, step) for step in range(len(stream)) if task in stream.shown(step)]
    return torch.cat(shown).unique() if shown else torch.empty(0, dtype=torch.long)


def recording(tensors: Mapping[str, Tensor], indices: Tensor, count: int) -> Recording:
    """From what `record` returned for the images at `indices`, out of `count`."""
    rows = torch.full((count,), -1)
    rows[indices] = torch.arange(len(indices))
    return Recording(rows, tuple(tensors[name] for name in sorted(tensors)))


class RecordedStream(Dataset[dict[str, dict[str, Any]]]):
    """A stream's steps with what was recorded of their images: step -> {task: fields of a Batch}.

    The images are those of the stream, in its order. They themselves are left out where `encoded` stands for them.
    """

    def __init__(
        self,
        stream: Stream,
        encoded: Mapping[str, Recording] | None = None,
        targets: Mapping[str, Recording] | None = None,
    ) -> None:
        self.stream = stream
        self.encoded = encoded
        self.targets = targets

    def __len__(self) -> int:
        return len(self.stream)

    def __getitem__(self, step: int) -> dict[str, dict[str, Any]]:
        return {task: self._fields(task, step) for task in self.stream.shown(step)}

    def _fields(self, task: str, step: int) -> dict[str, Any]:
        indices = self.stream.indices(task, step)
        fields: dict[str, Any] = {}
        if self.encoded is None:
            fields["images"] = self.stream.image_sets[task][indices]
        else:
            fields["encoded"] = self.encoded[task][indices]
        if self.targets is not None:
            fields["target"] = self.targets[task][indices]
        return fields
