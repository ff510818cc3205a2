"""ATM: alternate between tuning briefly for each task and merging what was tuned (Zhou et al.)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from adamerge.methods.full_finetuning import FullFinetuning
from adamerge.methods.gradients import Losses
from adamerge.methods.loop import Loop
from adamerge.objectives.labels import CrossEntropy
from adamerge.objectives.objective import Objective
from adamerge.rounds.batch import Batch


class ATM(FullFinetuning):
    """The whole encoder, moved by the mean of what each task's tuning changes."""

    @property
    def loop(self) -> type[Loop]:
        return AlternatingTuning

    @property
    def objective(self) -> Objective:
        return CrossEntropy()


class AlternatingTuning(Loop):
    """Each step: fine-tune from the merged model for each task in turn, then add the scaled sum of the differences.

        theta <- theta + scale * sum_k tau_k,   tau_k = tuned_k - theta

    A task's batches of a round are its local steps, with an optimiser that starts afresh.

    Args:
        scale: of the sum; None is 1/T, the mean.
    """

    method: ATM

    def __init__(self, *args: Any, scale: float | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.scale = scale

    def make_optimizers(self) -> list[Optimizer]:
        return []

    def step(self, batches: Sequence[Batch], optimizers: Sequence[Any]) -> Losses:
        theta = list(self.method.theta)
        start = [p.detach().clone() for p in theta]
        moved = [torch.zeros_like(p) for p in start]
        losses: Losses = []
        for batch in batches:
            losses += self.tune(batch)
            for total, parameter, origin in zip(moved, theta, start, strict=True):
                total += parameter.detach() - origin
                parameter.data.copy_(origin)
        scale = 1.0 / len(batches) if self.scale is None else self.scale
        for parameter, total in zip(theta, moved, strict=True):
            parameter.data.add_(total, alpha=scale)
        return losses

    def tune(self, batch: Batch) -> Losses:
        """The task's local steps, in place."""
        optimizer = self.optimizer(self.method.theta)
        losses: Losses = []
        for part in batch.split(self.schedule.batch_size):
            losses += self.update([part], optimizer)
        return losses
