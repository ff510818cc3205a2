"""Thin singular value decompositions, and what the spectral rules share: leading triplets and the polar factor.

A singular value at rounding's level is none: the vectors beside it are the decomposition's choice, not the matrix's,
and differ from one machine to the next. They count as zero here wherever a rule would give them weight.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Triplets(NamedTuple):
    """Singular triplets of a matrix (rows, columns), the largest first.

    Attributes:
        left: (rows, k).
        values: (k,).
        right: (k, columns).
    """

    left: Tensor
    values: Tensor
    right: Tensor

    def dense(self) -> Tensor:
        """(rows, columns) what the triplets make together."""
        return (self.left * self.values) @ self.right

    def present(self, size: Tensor | None = None) -> Triplets:
        """With the vectors beside singular values of zero at zero.

        Args:
            size: of the matrix that rounding is measured by; None takes the largest singular value.
        """
        if not len(self.values):
            return self
        longer = max(len(self.left), self.right.shape[1])
        rounding = torch.finfo(self.values.dtype).eps * longer**0.5
        has = self.values > rounding * (self.values[0] if size is None else size)
        return Triplets(self.left * has, self.values * has, self.right * has.unsqueeze(1))


def triplets(matrix: Tensor, count: int | None = None) -> Triplets:
    """The thin singular value decomposition of a matrix (rows, columns), or its `count` leading triplets."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return Triplets(left[:, :count], values[:count], right[:count])


def polar(matrix: Tensor) -> Tensor:
    """The nearest matrix (rows, columns) with orthonormal columns, or rows where it is wide: U V^T of its thin singular
    value decomposition, without the directions that it lacks."""
    left, _, right = triplets(matrix).present()
    return left @ right
