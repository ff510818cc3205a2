"""EMR-Merging: elect a unified task vector, keep a mask and a scale per task (arXiv 2405.17461, NeurIPS 2024)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from adamerge.merging.compact import Masked
from adamerge.merging.task_vectors import TaskVectors, TensorRule, flattened
from adamerge.rules.rule import Rule


@dataclass(frozen=True)
class Emr(Rule):
    """Task t's encoder is theta_0 + rescale_t * mask_t * unified; the task must be known at inference.

    unified has, per entry, the sign of the task vectors' mean (negative where that is 0) and the largest magnitude
    among the tasks of that sign. mask_t keeps the entries on which task t has that sign. rescale_t is the sum over the
    tensors of mean |tau_t|, divided by that of the masked unified vector.
    """

    gives = "experts"

    def prepare(self, vectors: TaskVectors) -> TensorRule:
        masked = self.compact(vectors)
        return lambda key, base, stack: masked(key, base, stack).dense().view(stack.shape)

    def compact(self, vectors: TaskVectors) -> Callable[[str, Tensor, Tensor], Masked]:
        """What the paper keeps: the unified vector, a mask and a rescaler per task."""
        wanted = torch.stack([_mean_magnitude(vectors.stack(key)) for key in vectors.keys]).sum(dim=0)
        found = torch.stack([_mean_magnitude(_masked(vectors.stack(key))) for key in vectors.keys]).sum(dim=0)
        rescale = torch.where(found > 0, wanted / found, 0.0)
        return lambda key, base, stack: Masked(*_unified(flattened(stack)), rescale)


def _mean_magnitude(stack: Tensor) -> Tensor:
    """(T,) mean |tau_t| of one tensor."""
    return flattened(stack).float().abs().mean(dim=1)


def _unified(stack: Tensor) -> tuple[Tensor, Tensor]:
    """The unified vector (*shape) and the masks (T, *shape) of one tensor's task vectors (T, *shape)."""
    elected = torch.where(stack.sum(dim=0) > 0, 1.0, -1.0).to(stack.dtype)
    agrees = stack * elected > 0
    return elected * torch.where(agrees, stack.abs(), 0.0).amax(dim=0), agrees


def _masked(stack: Tensor) -> Tensor:
    """mask_t * unified of one tensor's task vectors (T, *shape)."""
    unified, agrees = _unified(stack)
    return torch.where(agrees, unified, 0.0)
