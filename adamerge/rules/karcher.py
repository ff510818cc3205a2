"""SLERP and its form for more models, the Karcher mean: experts averaged on the sphere, tensor by tensor.

SLERP is Shoemake's (SIGGRAPH 1985), the mean Karcher's (1977); both are customary for language models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from adamerge.merging.task_vectors import TaskVectors, TensorRule, flattened
from adamerge.rules.rule import Rule
from adamerge.rules.shares import shares_of

_ROUNDS = 100
_STILL = 1e-9  # a step of this angle moves nothing
_OPPOSITE = -1.0 + 1e-9  # cosine of directions that no shortest arc joins


@dataclass(frozen=True)
class Karcher(Rule):
    """The weights theta_t of each tensor as a direction and a length: the direction u with the least sum of squared
    angles to the experts', the length their mean.

        u <- exp_u( sum_t w_t log_u(theta_t / ||theta_t||) )    until it is still,    theta = u * sum_t w_t ||theta_t||

    Of two experts it is SLERP: the point of the great arc at w_2, with a length between theirs. A tensor that is zero
    in an expert, or whose directions are opposite in two, is averaged. It is the merge of weights, not of task vectors:
    the origin makes no difference.

    Args:
        shares: w_t by the experts' names, at least 0, with the sum 1; None: equal ones.

    Raises:
        PoolError: shares of other names than the experts'.
    """

    gives = "delta"
    linear = True

    shares: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        given = [] if self.shares is None else list(self.shares.values())
        if given and (min(given) < 0.0 or abs(sum(given) - 1.0) > 1e-6):
            raise ValueError(f"shares are at least 0, with the sum 1, not {given}")

    def prepare(self, vectors: TaskVectors) -> TensorRule:
        weights = shares_of(vectors.names, self.shares)

        def of_tensor(key: str, base: Tensor, stack: Tensor) -> Tensor:
            experts = flattened(base + stack).double()
            parts = on_the_sphere(experts @ experts.t(), weights.to(stack.device))
            # sum_t parts_t theta_t - theta_0, by the task vectors, which are small.
            moved = torch.tensordot(parts.to(stack.dtype), stack, dims=1)
            return (moved + (parts.sum() - 1.0).to(stack.dtype) * base).unsqueeze(0)

        return of_tensor


def on_the_sphere(products: Tensor, weights: Tensor) -> Tensor:
    """(T,) parts of the experts in their mean; all points of the iteration lie in what the experts span.

    Args:
        products: (T, T) float64 inner products of the experts.
        weights: (T,) float64, with the sum 1.
    """
    lengths = products.diagonal().sqrt()
    if not bool((lengths > 0).all()):
        return weights
    cosines = products / (lengths.unsqueeze(0) * lengths.unsqueeze(1))
    if bool((cosines <= _OPPOSITE).any()):
        return weights
    parts = weights / (weights @ cosines @ weights).sqrt()
    for _ in range(_ROUNDS):
        near = (cosines @ parts).clamp(-1.0, 1.0)
        angles = near.acos()
        ratio = torch.where(angles > 1e-9, angles / angles.sin().clamp(min=1e-300), 1.0)
        # log_u(x_t) = ratio_t (x_t - near_t u), as parts of the experts.
        step = weights * ratio - (weights * ratio * near).sum() * parts
        angle = (step @ cosines @ step).clamp(min=0.0).sqrt()
        if float(angle) < _STILL:
            break
        parts = angle.cos() * parts + angle.sin() / angle * step
        parts = parts / (parts @ cosines @ parts).sqrt()
    return parts * (weights @ lengths) / lengths
