"""TIES: trim, elect sign, merge what agrees (arXiv 2306.01708)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from adamerge.merging import Pool


@dataclass(frozen=True)
class Ties:
    """Trim each task vector to its largest entries, elect a sign per entry, drop what disagrees.

    Args:
        top_k: share of entries kept per task, counted over the whole flattened vector.
        scale: coefficient of a static merge; 0.3 with the sum (AdaMerging's benchmark), 1.0 with the mean (paper).
        aggregate: "sum" or "mean" of the entries that agree with the elected sign.
        reference_size: number of entries that `top_k` refers to. None counts the tensors of the pool. The published
            numbers count the text tensors that the original checkpoints carry along unchanged: 113448705 for
            ViT-B/32, 111792129 for B/16, 342562049 for L/14.

    The result stays one vector per task, so that coefficients can be learned on it (AdaMerging++).
    """

    top_k: float = 0.2
    scale: float = 0.3
    aggregate: Literal["sum", "mean"] = "sum"
    reference_size: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.top_k <= 1.0:
            raise ValueError(f"top_k is the share of entries to keep, in (0, 1], not {self.top_k}")

    def __call__(self, pool: Pool) -> Pool:
        cuts = thresholds(pool, self.top_k, self.reference_size)
        trimmed = {key: _trim(stack, cuts) for key, stack in pool.vectors.items()}
        majority = _majority_sign(trimmed)
        vectors = {key: self._agreeing(stack, majority) for key, stack in trimmed.items()}
        return replace(pool, vectors=vectors, coefficient=self.scale)

    def _agreeing(self, trimmed: Tensor, majority: float) -> Tensor:
        elected = trimmed.sum(dim=0).sign()
        elected = torch.where(elected == 0, majority, elected)
        kept = torch.where(trimmed * elected > 0, trimmed, 0.0)
        if self.aggregate == "mean":
            kept = kept / (kept != 0).sum(dim=0).clamp(min=1)
        return kept


def thresholds(pool: Pool, top_k: float, reference_size: int | None = None) -> list[Tensor]:
    """For each task vector the smallest magnitude among its share `top_k` of largest entries, over all tensors.

    Entries >= it are kept, ties included. `reference_size` counts the entries where they are not the base's.
    """
    size = reference_size or sum(value.numel() for value in pool.base.values())
    found = []
    for task in range(len(pool.names)):
        magnitudes = torch.cat([stack[task].float().abs() for stack in pool.vectors.values()])
        # Tensors that nobody changed (and the reference's text tensors) count as zeros, the smallest entries.
        dropped = size - int(top_k * size) - (size - len(magnitudes))
        found.append(magnitudes.kthvalue(dropped).values if dropped >= 1 else magnitudes.new_zeros(()))
    return found


def _trim(stack: Tensor, cuts: list[Tensor]) -> Tensor:
    cut = torch.stack(cuts).unsqueeze(1).to(stack.device)
    return torch.where(stack.abs() >= cut, stack, 0.0).to(stack.dtype)


def _majority_sign(trimmed: Mapping[str, Tensor]) -> float:
    """The sign most entries elect, for the entries where the tasks cancel; +1 where even that is balanced."""
    balance = sum(stack.sum(dim=0).sign().double().sum().item() for stack in trimmed.values())
    return -1.0 if balance < 0 else 1.0
