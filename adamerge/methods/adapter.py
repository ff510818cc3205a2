"""The low-rank adapter of Representation Surgery."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Adapter(nn.Module):
    """x - up(relu(down(x))): takes off what a small bottleneck estimates to be the representation's bias.

    `down` (rank, width) starts as torch's linear layers do, `up` (width, rank) at zero: at first it is the identity.

    Source: Representation Surgery, arXiv 2402.02705, eq. 3.
    """

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, width, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., width) -> (..., width)."""
        return x - self.up(torch.relu(self.down(x)))
