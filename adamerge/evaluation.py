"""Predictions, accuracy and agreement (reference 3.4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adamerge.methods import Method
from adamerge.tasks.images import ImageSet

Progress = Callable[[int], None]  # told the number of images done


@torch.no_grad()
def predict_logits(
    method: Method,
    images: Mapping[str, ImageSet],
    *,
    device: torch.device,
    batch_size: int = 500,
    progress: Progress = lambda done: None,
) -> dict[str, Tensor]:
    """Logits {task: (n, classes)}, float32, of each task's images with its own head. Merges once for all tasks."""
    method = method.to(device).eval()
    if method.by_task:
        found = {}
        for task, image_set in images.items():
            with method.round(task):
                found[task] = _logits(method, task, image_set, device, batch_size, progress)
        return found
    with method.round():
        return {
            task: _logits(method, task, image_set, device, batch_size, progress)
            for task, image_set in images.items()
        }


def predict(method: Method, images: Mapping[str, ImageSet], **options: Any) -> dict[str, Tensor]:
    """Predicted classes {task: (n,)}; the options are those of `predict_logits`."""
    return {task: logits.argmax(dim=-1) for task, logits in predict_logits(method, images, **options).items()}


def _logits(
    method: Method, task: str, images: ImageSet, device: torch.device, batch_size: int, progress: Progress
) -> Tensor:
    parts = []
    for pixels in images.batches(batch_size):
        parts.append(method.logits(pixels.to(device), task).float().cpu())
        progress(len(pixels))
    return torch.cat(parts)


@dataclass(frozen=True)
class Score:
    """Shares between 0 and 1 of a task's images; None where they cannot be known."""

    accuracy: float | None
    agreement: float | None


def score(predicted: Tensor, labels: Tensor | None, expert: Tensor | None) -> Score:
    """Accuracy against labels (n,), and agreement with the expert's predictions (n,), which needs no labels."""
    return Score(_share(predicted, labels), _share(predicted, expert))


def _share(predicted: Tensor, reference: Tensor | None) -> float | None:
    return None if reference is None else float((predicted == reference).double().mean())
