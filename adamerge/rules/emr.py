"""EMR-Merging: elect a unified task vector, keep a mask and a scale per task (arXiv 2405.17461, NeurIPS 2024)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from adamerge.merging import Pool


@dataclass(frozen=True)
class Emr:
    """Task t's encoder is theta_0 + rescale_t * mask_t * unified; the task must be known at inference.

    unified has, per entry, the sign of the task vectors' mean (negative where that is 0) and the largest magnitude
    among the tasks of that sign. mask_t keeps the entries on which task t has that sign. rescale_t is the sum over the
    tensors of mean |tau_t|, divided by that of the masked unified vector.
    """

    def __call__(self, pool: Pool) -> Pool:
        masked = {key: _masked(stack) for key, stack in pool.vectors.items()}
        wanted = torch.stack([stack.float().abs().mean(dim=1) for stack in pool.vectors.values()]).sum(dim=0)
        found = torch.stack([stack.float().abs().mean(dim=1) for stack in masked.values()]).sum(dim=0)
        rescale = torch.where(found > 0, wanted / found, 0.0).unsqueeze(1)
        vectors = {key: (rescale * stack).to(pool.vectors[key].dtype) for key, stack in masked.items()}
        return replace(pool, vectors=vectors, coefficient=1.0, by_task=True)


def _masked(stack: Tensor) -> Tensor:
    """mask_t * unified of one tensor's task vectors (T, numel)."""
    elected = torch.where(stack.sum(dim=0) > 0, 1.0, -1.0).to(stack.dtype)
    agrees = stack * elected > 0
    unified = elected * torch.where(agrees, stack.abs(), 0.0).amax(dim=0)
    return torch.where(agrees, unified, 0.0)
