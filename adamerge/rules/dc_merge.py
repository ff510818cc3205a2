"""DC-Merge: tasks are merged entry by entry in a space that covers all of them (arXiv 2603.06242, CVPR 2026)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adamerge.merging.spectra import polar, triplets
from adamerge.rules.on_matrices import OnMatrices


@dataclass(frozen=True)
class DcMerge(OnMatrices):
    """Of each matrix with rank r, with U_t, s_t, V_t the q = int(r / T) leading triplets of task t, which the polar
    factors P and Q of [U_1 .. U_T] and [V_1 .. V_T] cover:

        M_t = P^T (U_t diag(s_t) V_t^T) Q          of which the largest `keep` r^2 entries stay, ties included
        M   = the mean of the entries that agree with the sign of sum_t M_t, in the T blocks of q x q on the diagonal
        Delta = scale * P M Q^T

    As the authors' code has it for full fine-tuning (Tobeginwith/DC-Merge), where it smooths no singular values. All
    other tensors are averaged.

    Args:
        keep: share of the r^2 entries of each M_t, at least one.
        scale: the authors choose it on labels, in steps of 0.1 up to 3, and do not state what was chosen.
        fused: whether query, key and value projections are one matrix, "together", as for the authors, or three,
            "apart".
    """

    gives = "delta"

    keep: float = 1.0e-3

    def __post_init__(self) -> None:
        if not 0.0 < self.keep <= 1.0:
            raise ValueError(f"keep is the share of entries to keep, in (0, 1], not {self.keep}")

    def of_matrices(self, matrices: Tensor) -> Tensor:
        tasks, rows, columns = matrices.shape
        rank = min(rows, columns)
        each = rank // tasks
        if each == 0:
            return torch.zeros_like(matrices[:1])
        own = [triplets(matrix, each).present() for matrix in matrices]
        left = polar(torch.cat([task.left for task in own], dim=1))
        right = polar(torch.cat([task.right for task in own]))
        count = max(1, int(self.keep * rank**2))
        cores = [_largest((left.t() @ (t.left * t.values)) @ (t.right @ right.t()), count) for t in own]
        core = _agreeing(torch.stack(cores)) * torch.block_diag(*[left.new_ones(each, each)] * tasks)
        return (left @ core @ right).unsqueeze(0)


def _largest(core: Tensor, count: int) -> Tensor:
    """The `count` largest entries of a matrix, more where several reach the smallest of them."""
    magnitudes = core.abs()
    cut = magnitudes.flatten().topk(min(count, core.numel())).values[-1]
    return torch.where(magnitudes >= cut, core, 0.0)


def _agreeing(cores: Tensor) -> Tensor:
    """(T, k, k) -> (k, k) the mean of the entries whose sign is the sum's."""
    agrees = cores * cores.sum(dim=0) > 0
    return torch.where(agrees, cores, 0.0).sum(dim=0) / agrees.sum(dim=0).clamp(min=1)
