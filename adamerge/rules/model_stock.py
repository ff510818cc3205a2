"""Model Stock: the mean of the experts, drawn back to the base by their angles (arXiv 2403.19522, ECCV 2024)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adamerge.merging.task_vectors import flattened
from adamerge.rules.rule import Rule


@dataclass(frozen=True)
class ModelStock(Rule):
    """Between the base and the experts' mean, tensor by tensor, c the mean cosine of two of the T task vectors:

        W = r mean_t W_t + (1 - r) W_0,    r = T c / (1 + (T - 1) c)

    where the mean is nearest to the centre of experts that lie at one angle from each other. Tensors whose task vectors
    point away from each other (c <= 0) stay the base's. An expert that left a tensor as it was has the cosine 0 with
    the others; one expert alone is itself.
    """

    own_start = True

    def coefficient(self, count: int) -> float:
        return 1.0 / count

    def of_tensor(self, key: str, base: Tensor, stack: Tensor) -> Tensor:
        return ratio(stack) * stack


def ratio(stack: Tensor) -> float:
    """r in [0, 1] of one tensor's task vectors (T, *shape)."""
    count = len(stack)
    if count == 1:
        return 1.0
    flat = flattened(stack)
    products = (flat @ flat.t()).double()
    norms = products.diagonal().sqrt()
    lengths = norms.unsqueeze(0) * norms.unsqueeze(1)
    cosines = torch.where(lengths > 0, products / lengths, 0.0)
    cosine = float(cosines.sum() - cosines.diagonal().sum()) / (count * (count - 1))
    return 0.0 if cosine <= 0.0 else min(count * cosine / (1.0 + (count - 1) * cosine), 1.0)
