"""CABS: task vectors pruned block by block, one after the other, without overlap (arXiv 2503.01874, ICML 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from adamerge.rules.rule import Rule


@dataclass(frozen=True)
class Cabs(Rule):
    """Of every `block` entries of a flattened tensor the first task keeps its `keep` largest; the next task keeps as
    many of what is left, and so on, as in the authors' code for two experts (zongzhenyang/CABS):

        theta = theta_0 + scale * sum_t m_t * tau_t

    The paper has two tasks; for more, the same goes on over all earlier masks, which is this project's reading. No
    entry is of two tasks, and where keep * T > block the last tasks get less. The order of the tasks matters. Of equal
    magnitudes the earlier entry is kept.

    Args:
        keep, block: n and m of n:m pruning; the paper has 32:128 and 64:256 for two large language models, 3:32 for
            small ones.
        tail: what happens to entries at a tensor's end that fill no block: "keep" the same share of them, or "drop"
            all, as in the authors' code.
        scale: coefficient of a static merge; the authors search one for each task on validation pictures, 0.4 to 0.9.
    """

    ranks = True
    own_start = True

    keep: int = 32
    block: int = 256
    tail: Literal["keep", "drop"] = "keep"
    scale: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.keep <= self.block:
            raise ValueError(f"keep is how many entries of a block stay, 1 to {self.block}, not {self.keep}")

    def coefficient(self, count: int) -> float:
        return self.scale

    def of_tensor(self, key: str, base: Tensor, stack: Tensor) -> Tensor:
        free = torch.ones(base.numel(), dtype=torch.bool, device=stack.device)
        pruned = torch.zeros_like(stack)
        for vector, found in zip(stack, pruned, strict=True):
            flat = torch.where(free, vector.reshape(-1), 0.0)
            mask = self._largest(flat)
            free = free & ~mask
            found.copy_((flat * mask).view(base.shape))
        return pruned

    def _largest(self, flat: Tensor) -> Tensor:
        """The mask (numel,) of one task."""
        end = len(flat) - len(flat) % self.block
        blocks = _top(flat[:end].view(-1, self.block), self.keep).flatten()
        rest = flat[end:]
        count = 0 if self.tail == "drop" else self.keep * len(rest) // self.block
        return torch.cat([blocks, _top(rest.unsqueeze(0), count).flatten()])


def _top(rows: Tensor, count: int) -> Tensor:
    """Which entries of each row (rows, columns) are among its `count` largest magnitudes."""
    order = rows.abs().argsort(dim=1, descending=True, stable=True)[:, :count]
    return torch.zeros_like(rows, dtype=torch.bool).scatter(1, order, True)
