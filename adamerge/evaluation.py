"""Predictions, accuracy and agreement (reference 3.4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from adamerge.methods import Method
from adamerge.tasks.images import ImageSet

Progress = Callable[[int], None]  # told the number of images done


@torch.no_grad()
def predict(
    method: Method,
    images: Mapping[str, ImageSet],
    *,
    device: torch.device,
    batch_size: int = 500,
    progress: Progress = lambda done: None,
) -> dict[str, Tensor]:
    """Predicted classes {task: (n,)} of each task's images with the task's own head. Merges once for all tasks."""
    method = method.to(device).eval()
    if method.by_task:
        predictions = {}
        for task, image_set in images.items():
            with method.round(task):
                predictions[task] = _classes(method, task, image_set, device, batch_size, progress)
        return predictions
    with method.round():
        return {
            task: _classes(method, task, image_set, device, batch_size, progress)
            for task, image_set in images.items()
        }


def _classes(
    method: Method, task: str, images: ImageSet, device: torch.device, batch_size: int, progress: Progress
) -> Tensor:
    classes = []
    for pixels in images.batches(batch_size):
        classes.append(method.logits(pixels.to(device), task).argmax(dim=-1).cpu())
        progress(len(pixels))
    return torch.cat(classes)


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
