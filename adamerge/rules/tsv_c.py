"""TSV-C: each task's leading singular vectors alone, one encoder per task in 1 / T of the space (arXiv 2412.00081)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from adamerge.merging.compact import LowRank
from adamerge.merging.matrices import Fused, as_matrices, is_matrix
from adamerge.merging.precision import wide
from adamerge.merging.spectra import triplets
from adamerge.merging.task_vectors import TaskVectors, TensorRule
from adamerge.rules.rule import Rule


@dataclass(frozen=True)
class TsvC(Rule):
    """Task t's encoder is theta_0 plus, of each of its matrices with rank r, the int(r / T) leading singular triplets
    (one where T is more than r); the task must be known at inference. Every tensor of two dimensions is a matrix, and
    all others are kept whole, as in the authors' code (AntoAndGar/task_singular_vectors).

    Args:
        fused: whether query, key and value projections are one matrix, "together", as for the authors, or three,
            "apart".
    """

    gives = "experts"

    fused: Fused = "together"

    def prepare(self, vectors: TaskVectors) -> TensorRule:
        compact = self.compact(vectors)

        def of_tensor(key: str, base: Tensor, stack: Tensor) -> Tensor:
            found = compact(key, base, stack)
            return found if isinstance(found, Tensor) else found.dense().view(stack.shape)

        return of_tensor

    def compact(self, vectors: TaskVectors) -> Callable[[str, Tensor, Tensor], Tensor | LowRank]:
        """What the paper keeps: factors of each matrix, where they are smaller than the matrix."""
        return lambda key, base, stack: self._factors(key, stack) if is_matrix(base) else stack

    def _factors(self, key: str, stack: Tensor) -> Tensor | LowRank:
        lefts, rights = [], []
        for matrices in as_matrices(key, wide(stack), self.fused):
            count = max(1, min(matrices.shape[1:]) // len(matrices))
            own = [triplets(matrix, count) for matrix in matrices]
            lefts.append(torch.stack([task.left * task.values for task in own]))
            rights.append(torch.stack([task.right for task in own]))
        factors = LowRank(torch.stack(lefts), torch.stack(rights)).to(stack.dtype)
        return factors if factors.nbytes < stack.nbytes else factors.dense().view(stack.shape)
