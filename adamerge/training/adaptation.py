"""Test-time adaptation of a merged model on unlabeled images, as a LightningModule around the method's loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from adamerge.methods.base import Method
from adamerge.methods.gradients import Losses
from adamerge.methods.loop import Indices, Labeled, Loop, OptimizerFactory
from adamerge.objectives.objective import Objective
from adamerge.rounds.batch import Batch, Given
from adamerge.rounds.schedule import Schedule
from adamerge.training.step_module import StepModule


class Adaptation(StepModule):
    """Trains a method by its loop; Lightning brings the device, the precision, checkpoints and progress.

    Args:
        method: the merged model; its parameters are the only ones trained.
        objective: loss on one batch of one task; summed over the batches and tasks that share an update.
        optimizer: called with the parameters; None for a loop that needs none.
        schedule: when to update and with how many images.
        indices: (task, step) -> the images' indices, to name the culprits of a non-finite loss.
        teacher: the experts, for an objective that compares with them while the stream gives no targets.
        labeled: a few labelled images of each task, for a loop that looks at them beside the stream.
        loop: a Loop, or a functools.partial of one; the method's own when left out.
    """

    def __init__(
        self,
        method: Method,
        objective: Objective,
        optimizer: OptimizerFactory | None,
        schedule: Schedule,
        indices: Indices | None = None,
        teacher: Method | None = None,
        *,
        labeled: Labeled | None = None,
        loop: Callable[..., Loop] | None = None,
    ) -> None:
        super().__init__()
        make = method.loop if loop is None else loop
        self.loop = make(
            method,
            objective,
            optimizer,
            schedule,
            _Lightning(self),
            teacher=teacher,
            labeled=labeled,
            indices=indices,
        )

    def configure_optimizers(self) -> Any:
        return self.loop.make_optimizers() or None

    def on_train_start(self) -> None:
        # Lightning keeps the mode it finds; some parts (a router's dropout) differ while they are trained.
        self.loop.method.train()

    def on_train_end(self) -> None:
        self.loop.method.eval()

    def training_step(self, stream: dict[str, Given], batch_idx: int) -> None:
        given: Any = self.optimizers()
        optimizers = given if isinstance(given, list) else [given]
        batches = [Batch.of(task, entry) for task, entry in stream.items()]
        self.finish_step(summed(self.loop.step(batches, optimizers)))


class _Lightning:
    """The engine of a loop: Lightning's device, precision and optimisers."""

    def __init__(self, module: StepModule) -> None:
        self._module = module

    @property
    def step(self) -> int:
        return self._module.step

    @property
    def device(self) -> torch.device:
        return self._module.device

    @property
    def loss_scale(self) -> float | None:
        scaler = self._module.scaler
        return None if scaler is None else scaler.get_scale()

    def backward(self, loss: Tensor) -> None:
        self._module.manual_backward(loss)

    def take(self, optimizer: Any) -> None:
        self._module.take_step(optimizer)


def summed(losses: Losses) -> dict[str, Tensor]:
    """Each task's losses added up."""
    sums: dict[str, Tensor] = {}
    for task, loss in losses:
        sums[task] = sums[task] + loss if task in sums else loss
    return sums
