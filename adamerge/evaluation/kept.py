"""What is kept of logits for each picture: the predicted class, its probability, and what they are judged by."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from adamerge.tasks.images import ImageSet
from adamerge.tasks.protocol import Parts
from adamerge.tracking.predictions import TaskPredictions


def kept_of(
    logits: Mapping[str, Tensor],
    images: Mapping[str, ImageSet],
    labels: Mapping[str, Tensor | None],
    parts: Mapping[str, Parts],
) -> dict[str, TaskPredictions]:
    """By task.

    Args:
        logits: {task: (n, classes)} on each task's test split.
        images, labels: of the same split; no labels is None.
        parts: the rows that are scored.
    """
    found = {}
    for task, values in logits.items():
        predicted, own = values.argmax(dim=-1), labels[task]
        probability = values.double().softmax(dim=-1).gather(1, predicted[:, None]).squeeze(1)
        found[task] = TaskPredictions(
            predicted.numpy(),
            probability.to(torch.float32).numpy(),
            None if own is None else own.numpy(),
            parts[task].scored.numpy(),
            images[task].digest(),
        )
    return found
