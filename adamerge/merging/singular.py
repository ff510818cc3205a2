"""Merging weighted singular triplets: theta_0 + sum_t sum_i w_{t,i} u_{t,i} v_{t,i}^T, differentiably in the weights.

As in the functional merge, with G = dL/dtheta one number for each task and triplet says everything:

    dL/dw_{t,i} = u_{t,i}^T G v_{t,i}
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adamerge.merging.compact import LowRank
from adamerge.merging.precision import full_precision, wide
from adamerge.merging.spectra import triplets


def decomposed(matrices: list[Tensor]) -> LowRank:
    """Every triplet of the matrices, each (T, rows, columns); the singular values lie in the left factors."""
    found = [[triplets(own) for own in tasks] for tasks in matrices]
    return LowRank(
        torch.stack([torch.stack([own.left * own.values for own in tasks]) for tasks in found]),
        torch.stack([torch.stack([own.right for own in tasks]) for tasks in found]),
    )


def merge_triplets(weights: Tensor, base: Tensor, vectors: LowRank) -> Tensor:
    """Merge one tensor.

    Args:
        weights: (matrices, T, rank).
        base: the pre-trained tensor, of which the matrices are equal parts, one below the other.
        vectors: the triplets that the weights are of.
    """
    merged: Tensor = _MergeTriplets.apply(weights, base, vectors.left, vectors.right)  # type: ignore[no-untyped-call]
    return merged


class _MergeTriplets(torch.autograd.Function):
    """Saves nothing but the factors, which exist anyway."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, base: Tensor, left: Tensor, right: Tensor) -> Tensor:
        ctx.save_for_backward(left, right)
        out = base.clone().flatten(1)
        with full_precision(base), torch.no_grad():
            for m, part in enumerate(out.chunk(len(left))):
                for t in range(left.shape[1]):
                    part += ((wide(left[m, t]) * weights[m, t]) @ wide(right[m, t])).to(base.dtype)
        return out.view(base.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        left, right = ctx.saved_tensors
        parts = wide(gradients[0]).flatten(1).chunk(len(left))
        with full_precision(left):
            found = [
                torch.stack(
                    [
                        ((part @ wide(right[m, t]).T) * wide(left[m, t])).sum(dim=0)
                        for t in range(left.shape[1])
                    ]
                )
                for m, part in enumerate(parts)
            ]
        return torch.stack(found), None, None, None
