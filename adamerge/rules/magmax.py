"""MagMax: of each entry the task vector that changed it most (arXiv 2407.06322, ECCV 2024; danielm1405/magmax)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adamerge.rules.rule import Rule


@dataclass(frozen=True)
class MagMax(Rule):
    """theta_0 + scale * tau, where entry i of tau is that of the task vector whose magnitude is largest there.

    Of equally large entries the last task's is taken, as by the authors. Each task keeps the entries that it won, so
    that coefficients can be learned task by task.

    Args:
        scale: coefficient of a static merge; the authors merge eight datasets' experts with 0.5.
    """

    ranks = True
    own_start = True

    scale: float = 0.5

    def coefficient(self, count: int) -> float:
        return self.scale

    def of_tensor(self, key: str, base: Tensor, stack: Tensor) -> Tensor:
        winner = len(stack) - 1 - stack.abs().flip(0).argmax(dim=0, keepdim=True)
        return torch.zeros_like(stack).scatter(0, winner, stack.gather(0, winner))
