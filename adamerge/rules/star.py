"""STAR: small singular values of each task cut off, the rest made as strong as all (NAACL 2025; IBM/STAR)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adamerge.merging.spectra import triplets
from adamerge.rules.on_matrices import OnMatrices


@dataclass(frozen=True)
class Star(OnMatrices):
    """Of each task's matrix the leading singular triplets up to the one that reaches `keep` of the nuclear norm, times
    what gives the whole nuclear norm back; then the average over the tasks:

        k = min { j : s_1 + .. + s_j >= keep * sum s }
        D_t <- (sum s / (s_1 + .. + s_k)) (s_1 u_1 v_1^T + .. + s_k u_k v_k^T)

    All other tensors are averaged as they are.

    Args:
        keep: share of the nuclear norm, the authors' eta = 40 percent.
        scale: 1 for the authors. It lies in the vectors, whose coefficient is 1 / T.
        fused: whether query, key and value projections are one matrix, "together", as they stand in open_clip's files,
            or three, "apart".
    """

    own_start = False

    keep: float = 0.4

    def __post_init__(self) -> None:
        if not 0.0 < self.keep <= 1.0:
            raise ValueError(f"keep is the share of the nuclear norm, in (0, 1], not {self.keep}")

    def coefficient(self, count: int) -> float:
        return 1.0 / count

    def of_others(self, stack: Tensor) -> Tensor:
        return stack

    def of_matrices(self, matrices: Tensor) -> Tensor:
        return torch.stack([self._rescaled(matrix) for matrix in matrices])

    def _rescaled(self, matrix: Tensor) -> Tensor:
        left, values, right = triplets(matrix)
        reached = values.cumsum(dim=0)
        if reached[-1] == 0:
            return torch.zeros_like(matrix)
        count = int(torch.searchsorted(reached, self.keep * reached[-1])) + 1
        kept = reached[-1] / reached[:count][-1] * values[:count]
        return (left[:, :count] * kept) @ right[:count]
