"""WUDI: a merge that interferes least with each task's own row space, found without data (arXiv 2503.08099)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from adamerge.rules.on_matrices import OnMatrices

_RIDGE = 1e-8  # on a Gram matrix of trace T: directions that no task has have no inverse


@dataclass(frozen=True)
class Wudi(OnMatrices):
    """Of each matrix, from X = sum_t D_t on:

        minimise  sum_t || (X - D_t) D_t^T ||^2 / || D_t ||^2      by Adam

    The gradient is 2 (X C - R) with C = sum_t D_t^T D_t / ||D_t||^2 and R = sum_t D_t D_t^T D_t / ||D_t||^2: a step
    costs the same for any number of tasks. All other tensors are averaged (FusionBench, method/wudi).

    Args:
        solver: "adam", which moves an entry by up to steps x lr and so stops early, or "closed": where gradient descent
            from the same start would end.
        steps, lr: Adam's.
        scale: what the merge is multiplied with, 1 for the authors.
        fused: whether query, key and value projections are one matrix, "together", as they stand in open_clip's files,
            or three, "apart", as in FusionBench.
    """

    gives = "delta"

    solver: Literal["adam", "closed"] = "adam"
    steps: int = 300
    lr: float = 1.0e-5

    def of_matrices(self, matrices: Tensor) -> Tensor:
        start = matrices.sum(dim=0)
        gram, slope = interference(start, matrices, matrices, matrices.flatten(1).norm(dim=1))
        if self.solver == "closed":
            moved = settled(gram, slope).to(start.dtype)
        else:
            moved = descended(gram.to(start.dtype), slope.to(start.dtype), self.steps, self.lr)
        return (start + moved).unsqueeze(0)


def interference(start: Tensor, targets: Tensor, rows: Tensor, norms: Tensor) -> tuple[Tensor, Tensor]:
    """C (columns, columns) and start C - R (rows, columns), half the gradient at the start, in float64:

        C = sum_t L_t^T L_t / ||D_t||^2        start C - R = sum_t (start - target_t) L_t^T L_t / ||D_t||^2

    The second is summed from the differences: of one task it is nothing but zero.

    Args:
        start: (rows, columns).
        targets: (T, rows, columns) what X is drawn to on each task's row space.
        rows: (T, any, columns) L_t, which spans that row space.
        norms: (T,) ||D_t||; a task of norm 0 counts nothing.
    """
    columns = start.shape[1]
    gram = torch.zeros(columns, columns, dtype=torch.float64, device=start.device)
    slope = torch.zeros(start.shape, dtype=torch.float64, device=start.device)
    for target, own, norm in zip(targets, rows, norms, strict=True):
        if norm == 0:
            continue
        unit = own.double() / norm.double()
        gram += unit.t() @ unit
        slope += ((start.double() - target.double()) @ unit.t()) @ unit
    return gram, slope


def descended(gram: Tensor, slope: Tensor, steps: int, lr: float) -> Tensor:
    """What Adam adds to the start (rows, columns): it is small beside it, and keeps its own digits."""
    moved = torch.zeros_like(slope)
    optimizer = torch.optim.Adam([moved], lr=lr)
    for _ in range(steps):
        moved.grad = 2.0 * (moved @ gram + slope)
        optimizer.step()
    return moved


def settled(gram: Tensor, slope: Tensor) -> Tensor:
    """What is to be added to the start for the gradient to be zero."""
    ridge = _RIDGE * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return -torch.cholesky_solve(slope.t(), torch.linalg.cholesky(gram + ridge)).t()
