"""The heads of a trained model as plain numbers, and whether they are all that stands behind its encoder."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import linear, normalize

from adamerge.methods import Method
from adamerge.models.clip import Model, image_size

_BIAS = ".bias"


@torch.no_grad()
def linear_heads(method: Method) -> dict[str, Tensor]:
    """{task: weight (classes, d)} with the logit scale in it, and {"<task>.bias": (classes,)} where there is one.

    Read off the classifier itself, at the unit features and at 0, so that a trained head is given as it is.
    """
    width = method.pool.base["visual.proj"].shape[1]
    heads = {}
    for task in method.pool.tasks:
        bias = method.classify(torch.zeros(1, width), task)
        heads[task] = (method.classify(torch.eye(width), task) - bias).t().contiguous()
        if bias.any():
            heads[f"{task}{_BIAS}"] = bias[0]
    return heads


@torch.no_grad()
def tasks_with_parts(method: Method, heads: Mapping[str, Tensor], model: Model) -> list[str]:
    """The tasks whose logits are not those of the encoder's features and the head alone (adapters stand between)."""
    if method.by_task:
        return list(method.pool.tasks)
    size = image_size(model)
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    different = []
    with method.round():
        features = normalize(method.features(images), dim=-1)
        for task in method.pool.tasks:
            plain = linear(features, heads[task], heads.get(f"{task}{_BIAS}"))
            own = method.logits(images, task)
            if (plain - own).abs().max() > 1e-3 * own.abs().max():
                different.append(task)
    return different
