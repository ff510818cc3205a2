"""ATM: alternate between tuning briefly for each task and merging what was tuned."""

from __future__ import annotations

from typing import Any

import torch

from adamerge.methods.full_finetuning import FullFinetuning
from adamerge.training.adaptation import Adaptation, summed
from adamerge.training.batch import Batch, Given
from adamerge.training.gradients import Losses


class AlternatingTuning(Adaptation):
    """Each step: fine-tune from the merged model for each task in turn, then add the scaled sum of the differences.

        theta <- theta + scale * sum_k tau_k,   tau_k = tuned_k - theta

    A task's batches of a round are its local steps, with an optimiser that starts afresh.

    Args:
        scale: of the sum; None is 1/T, the mean.
    """

    method: FullFinetuning

    def __init__(self, *args: Any, scale: float | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.scale = scale

    def configure_optimizers(self) -> Any:
        return None

    def training_step(self, stream: dict[str, Given], batch_idx: int) -> None:
        theta = list(self.method.theta)
        start = [p.detach().clone() for p in theta]
        moved = [torch.zeros_like(p) for p in start]
        losses: Losses = []
        for task, given in stream.items():
            losses += self.tune(Batch.of(task, given))
            for total, parameter, origin in zip(moved, theta, start, strict=True):
                total += parameter.detach() - origin
                parameter.data.copy_(origin)
        scale = 1.0 / len(stream) if self.scale is None else self.scale
        for parameter, total in zip(theta, moved, strict=True):
            parameter.data.add_(total, alpha=scale)
        self.finish_step(summed(losses))

    def tune(self, batch: Batch) -> Losses:
        """The task's local steps, in place."""
        optimizer = self._optimizer(self.method.theta)
        losses: Losses = []
        for part in batch.split(self.schedule.batch_size):
            optimizer.zero_grad()
            found = self.gradients.accumulate([part], self.manual_backward)
            self.check_finite(found)
            self.take_step(optimizer)
            losses += found
        return losses
