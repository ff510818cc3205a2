"""TIES: trim, elect sign, merge what agrees (arXiv 2306.01708)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from adamerge.merging.selection import kth_magnitudes
from adamerge.merging.task_vectors import TaskVectors, TensorRule, numel
from adamerge.rules.rule import Rule


@dataclass(frozen=True)
class Ties(Rule):
    """Trim each task vector to its largest entries, elect a sign per entry, drop what disagrees.

    Args:
        top_k: share of entries kept per task, counted over the whole flattened vector.
        scale: coefficient of a static merge; 0.3 with the sum (AdaMerging's benchmark), 1.0 with the mean (paper).
        aggregate: "sum" or "mean" of the entries that agree with the elected sign, or "max": the largest of them.
        reference_size: number of entries that `top_k` refers to. None counts the tensors of the pool. The published
            numbers count the text tensors that the original checkpoints carry along unchanged (the families of
            checkpoints know how many: `ties_reference_size`).

    The result stays one vector per task, so that coefficients can be learned on it (AdaMerging++).
    """

    ranks = True

    top_k: float = 0.2
    scale: float = 0.3
    aggregate: Literal["sum", "mean", "max"] = "sum"
    reference_size: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.top_k <= 1.0:
            raise ValueError(f"top_k is the share of entries to keep, in (0, 1], not {self.top_k}")
        if self.reference_size is not None and self.reference_size < 1:
            raise ValueError(f"reference_size is a number of entries, not {self.reference_size}")

    def coefficient(self, count: int) -> float:
        return self.scale

    def prepare(self, vectors: TaskVectors) -> TensorRule:
        cuts = thresholds(vectors, self.top_k, self.reference_size)
        sums = (trimmed(vectors.stack(key), cuts).sum(dim=0) for key in vectors.keys)
        balance = sum(float(total.sign().sum(dtype=torch.float64)) for total in sums)
        # The sign most entries elect, for the entries where the tasks cancel; +1 where even that is balanced.
        majority = -1.0 if balance < 0 else 1.0
        return lambda key, base, stack: self._agreeing(trimmed(stack, cuts), majority)

    def _agreeing(self, stack: Tensor, majority: float) -> Tensor:
        elected = stack.sum(dim=0).sign()
        elected = torch.where(elected == 0, majority, elected)
        kept = torch.where(stack * elected > 0, stack, 0.0)
        if self.aggregate == "mean":
            kept = kept / (kept != 0).sum(dim=0).clamp(min=1)
        elif self.aggregate == "max":
            first = kept.abs().argmax(dim=0, keepdim=True)  # one task where several are equally large
            kept = torch.zeros_like(kept).scatter(0, first, kept.gather(0, first))
        return kept


def thresholds(vectors: TaskVectors, top_k: float, reference_size: int | None = None) -> Tensor:
    """For each task vector the smallest magnitude among its share `top_k` of largest entries, over all tensors.

    Entries >= it are kept, ties included. `reference_size` counts the entries where they are not the base's.

    Returns:
        (T,) float32.
    """
    size = reference_size or numel(vectors)
    changed = sum(vectors.shapes[key].numel() for key in vectors.keys)
    # Tensors that nobody changed (and the reference's text tensors) count as zeros, the smallest entries.
    dropped = size - int(top_k * size) - (size - changed)
    return kth_magnitudes(vectors, [dropped] * len(vectors.names))


def largest(stack: Tensor, cuts: Tensor) -> Tensor:
    """Which entries of one tensor's task vectors (T, *shape) reach each one's threshold (T,)."""
    return stack.float().abs() >= cuts.to(stack.device).view(-1, *(1,) * (stack.ndim - 1))


def trimmed(stack: Tensor, cuts: Tensor) -> Tensor:
    """The task vectors (T, *shape) of one tensor with the entries below each one's threshold (T,) at zero."""
    return torch.where(largest(stack, cuts), stack, 0.0)
