"""PCB-Merging: entries weighted by the competition within and between tasks (arXiv 2410.02396, NeurIPS 2024).

Of the authors' three implementations this follows the one of their vision experiments (duguodong7/pcb-merging, pcb.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adamerge.merging.selection import kth_magnitudes, kth_values
from adamerge.merging.task_vectors import Seen, TaskVectors, TensorRule, flattened, numel, per_task
from adamerge.rules.rule import Rule

_OUTLIERS = 0.01  # share of the entries at either end whose magnitudes are clamped


@dataclass(frozen=True)
class Pcb(Rule):
    """tau = sum_t c_t w_t / sum_t w_t, theta = theta_0 + scale * tau. For T whole flattened task vectors x_t, with
    norm(z) = (z - min z) / (max z - min z):

        a_t = |x_t| clamped to its order statistics at 1 % and 99 %,    c_t = sign(x_t) a_t
        b_t = exp(T norm(a_t)^2) * tanh(x_t * sum_s sign(x_s) norm(a_s))      within a task, between tasks
        w_t = norm(b_t clamped from below at its order statistic at 1 - keep)

    Each task keeps its term of the sum, scale included, so that coefficients can be learned task by task.

    Args:
        keep: share of each task's entries that have a weight. 0.05 is the authors' for vision, 0.1 in their file for
            language.
        scale: factor of c_t (lambda), 1.2 as the authors have it.
        reference_size: number of entries that shares are of, as for TIES: the published numbers count the unchanged
            text tensors of the original checkpoints. None counts the tensors of the pool.
    """

    ranks = True
    own_start = True

    keep: float = 0.05
    scale: float = 1.2
    reference_size: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.keep <= 1.0:
            raise ValueError(f"keep is the share of entries to keep, in (0, 1], not {self.keep}")
        if self.reference_size is not None and self.reference_size < 1:
            raise ValueError(f"reference_size is a number of entries, not {self.reference_size}")

    def prepare(self, vectors: TaskVectors) -> TensorRule:
        size = self.reference_size or numel(vectors)
        zeros = size - sum(vectors.shapes[key].numel() for key in vectors.keys)  # entries that nobody changed
        count = len(vectors.names)
        low, high = (
            kth_magnitudes(vectors, [1 + place - zeros] * count)
            for place in (int(size * _OUTLIERS), int(size * (1 - _OUTLIERS) - 1))
        )
        competition = Competition(vectors, low, high)
        least = kth_values(competition, [1 + int(size * (1 - self.keep))] * count, zeros)
        most = torch.stack([flattened(competition.stack(k)).amax(dim=1) for k in competition.keys]).amax(
            dim=0
        )

        def of_tensor(key: str, base: Tensor, stack: Tensor) -> Tensor:
            scores = competition.of(stack)
            # The least is exact in float32. An entry that is just it must have no weight at all: where no other task
            # has any, the least weight counts as a whole one.
            above = scores.float() > per_task(least, scores.float())
            weights = torch.where(above, _normed(scores, least, most), 0.0)
            clamped = stack.sign() * _clamped(stack, low, high)
            return self.scale * clamped * weights / weights.sum(dim=0).clamp(min=1e-12)

        return of_tensor


@dataclass(frozen=True)
class Competition(Seen):
    """b_t in the place of the task vectors, (T, *shape) float32 or wider.

    Attributes:
        low, high: (T,) magnitudes that the task vectors are clamped to.
    """

    low: Tensor
    high: Tensor

    def stack(self, key: str) -> Tensor:
        return self.of(self.inner.stack(key))

    def of(self, stack: Tensor) -> Tensor:
        normed = _normed(stack.abs(), self.low, self.high)
        within = (len(stack) * normed.square()).exp()
        between = torch.tanh(stack * (stack.sign() * normed).sum(dim=0))
        return within * between


def _clamped(stack: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return torch.maximum(torch.minimum(stack.abs(), per_task(high, stack)), per_task(low, stack))


def _normed(stack: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Clamped to [low, high] of each task and brought to [0, 1]; zeros where the two are one."""
    low, high = per_task(low, stack), per_task(high, stack)
    width = high - low
    return torch.where(width > 0, (stack.clamp(min=low, max=high) - low) / width, 0.0)
