"""Iso-CTS: Iso-C with room for each task's own directions (arXiv 2502.04959, ICML 2025; danielm1405/iso-merging)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adamerge.merging.spectra import polar, triplets
from adamerge.rules.on_matrices import OnMatrices


@dataclass(frozen=True)
class IsoCts(OnMatrices):
    """The leading directions of the sum, beside them each task's leading ones of what lies outside of these:

        U_c, s_c, V_c = the k leading triplets of sum_t D_t
        U_t, s_t, V_t = the q leading triplets of D_t - U_c U_c^T D_t
        Delta = scale * mean(s) polar([U_1 .. U_T U_c]) polar([V_1 .. V_T V_c])^T

    k and q share the rank r: q = round((r - int(common r)) / T), halves to even, and k = r - T q. Without room for a
    direction of each task (q = 0) it is Iso-C. All other tensors are as Iso-C has them.

    Args:
        common: share of the rank for the sum's directions.
        scale: the authors choose it on labels, in steps of 0.1 up to 3: for 8, 14 and 20 tasks 1.5, 1.2, 1.1 with
            ViT-B/32, 1.6, 1.2, 1.1 with B/16, 1.9, 1.5, 1.2 with L/14.
        fused: whether query, key and value projections are one matrix, "together", as for the authors, or three,
            "apart".
    """

    gives = "delta"

    scale: float = 1.5
    common: float = 0.8

    def __post_init__(self) -> None:
        if not 0.0 <= self.common <= 1.0:
            raise ValueError(
                f"common is the share of the rank for the sum's directions, in [0, 1], not {self.common}"
            )

    def of_matrices(self, matrices: Tensor) -> Tensor:
        common, each = self._shares(min(matrices.shape[1:]), len(matrices))
        summed = triplets(matrices.sum(dim=0), common).present()
        inside = summed.left
        own = [
            triplets(matrix - inside @ (inside.t() @ matrix), each).present(matrix.norm())
            for matrix in matrices
        ]
        lefts, values, rights = zip(*own, summed, strict=True)
        strengths = torch.cat(values)
        mean = strengths.sum() / (strengths > 0).sum().clamp(min=1)
        return (mean * polar(torch.cat(lefts, dim=1)) @ polar(torch.cat(rights))).unsqueeze(0)

    def _shares(self, rank: int, tasks: int) -> tuple[int, int]:
        """How many directions the sum has, and each task."""
        each = round((rank - int(self.common * rank)) / tasks)
        each = min(each, rank // tasks)  # rounded up, T of them could be more than there are
        return rank - each * tasks, each
