"""CART: the experts' average plus what leads in each one's difference from it (arXiv 2412.12153; JH-GEECS/CART)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adamerge.merging.matrices import Fused, by_matrix, is_block_matrix
from adamerge.merging.precision import wide
from adamerge.merging.spectra import triplets
from adamerge.merging.task_vectors import Origin
from adamerge.rules.rule import Rule


@dataclass(frozen=True)
class Cart(Rule):
    """theta_avg + scale * sum_t truncated(theta_t - theta_avg), where of each weight matrix of the blocks the leading
    max(1, int(rank * r)) singular triplets are kept, r its full rank.

    All other tensors keep their whole differences, which sum to zero: they are averaged until coefficients differ.
    About the base (origin=base) it is task arithmetic on truncated task vectors.

    Args:
        rank: share of the singular triplets. The authors have 0.12, 0.16 and 0.32 for 8, 14 and 20 tasks (ViT-B/32).
        scale: the authors have 2.0, 1.5 and 1.9. It lies in the vectors, whose coefficient is 1, so that coefficients
            between 0 and 1 can be learned on them.
        origin: what the task vectors start from, unless whoever merges says otherwise.
        fused: whether query, key and value projections are one matrix, "together", as for the authors, or three,
            "apart".

    Raises:
        PoolError: a single expert is its own average.
    """

    own_start = True

    rank: float = 0.12
    scale: float = 2.0
    origin: Origin = "average"
    fused: Fused = "together"

    def __post_init__(self) -> None:
        if not 0.0 < self.rank <= 1.0:
            raise ValueError(f"rank is the share of the singular triplets, in (0, 1], not {self.rank}")

    def of_tensor(self, key: str, base: Tensor, stack: Tensor) -> Tensor:
        found = wide(stack)
        if is_block_matrix(key, base):
            found = by_matrix(key, found, self._truncated, self.fused)
        return (self.scale * found).to(stack.dtype)

    def _truncated(self, matrices: Tensor) -> Tensor:
        count = max(1, int(self.rank * min(matrices.shape[1:])))
        return torch.stack([triplets(matrix, count).dense() for matrix in matrices])
