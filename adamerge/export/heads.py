"""Whether the heads of a trained model are all that stands behind its encoder."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from adamerge.merging import Head
from adamerge.methods.base import Method
from adamerge.models.clip import Model, image_size


def final_heads(method: Method) -> dict[str, Head]:
    """The head that each task is classified with, trained ones as they are now."""
    return {task: method.head(task).map(lambda tensor: tensor.detach().cpu()) for task in method.pool.tasks}


@torch.no_grad()
def tasks_with_parts(method: Method, heads: Mapping[str, Head], model: Model) -> list[str]:
    """The tasks whose logits are not those of the encoder's features and the head alone (adapters stand between)."""
    if method.by_task:
        return list(method.pool.tasks)
    size = image_size(model)
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    different = []
    with method.merged_once():
        features = method.features(images)
        for task in method.pool.tasks:
            own = method.logits(images, task)
            if (heads[task].logits(features) - own).abs().max() > 1e-3 * own.abs().max():
                different.append(task)
    return different
