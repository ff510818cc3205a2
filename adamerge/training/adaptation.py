"""Test-time adaptation of a merged model on unlabeled images, as a LightningModule."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from adamerge.errors import RunError
from adamerge.losses import Objective
from adamerge.methods import Method
from adamerge.training.schedule import Batch, Schedule
from adamerge.training.steps import StepModule

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]


class Adaptation(StepModule):
    """Minimises an objective over the method's trainable parts.

    Args:
        method: the merged model; its parameters are the only ones trained.
        objective: loss on one batch of one task; summed over the batches and tasks that share an update.
        optimizer: called with the parameters.
        schedule: when to update and with how many images.
        indices: (task, step) -> the images' indices, to name the culprits of a non-finite loss.
    """

    def __init__(
        self,
        method: Method,
        objective: Objective,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        indices: Callable[[str, int], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.method = method
        self.objective = objective
        self.schedule = schedule
        self._optimizer = optimizer
        self._indices = indices

    def configure_optimizers(self) -> Optimizer:
        return self._optimizer([p for p in self.method.parameters() if p.requires_grad])

    def training_step(self, images: dict[str, Tensor], batch_idx: int) -> None:
        losses: dict[str, Tensor] = {}
        for group in self.schedule.groups(images):
            for task, loss in self._update(group):
                losses[task] = losses[task] + loss if task in losses else loss
        self.finish_step(losses)

    def _update(self, group: list[Batch]) -> list[tuple[str, Tensor]]:
        """One optimiser step: merge, run the batches, contract the gradient, update."""
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        losses: list[tuple[str, Tensor]] = []
        task = group[0][0] if self.method.by_task else None
        with self.method.round(task) as merged:
            for pack in self.schedule.packs(group, self.method.by_task):
                losses += self._backward(pack)
            merged.pull()
        self._check_finite(losses)
        optimizer.step()
        return losses

    def _backward(self, pack: list[Batch]) -> list[tuple[str, Tensor]]:
        features = self.method.features(torch.cat([images for _, images in pack]))
        parts = features.split([len(images) for _, images in pack])
        losses = [
            (task, self.objective(self.method, part, task))
            for (task, _), part in zip(pack, parts, strict=True)
        ]
        self.manual_backward(torch.stack([loss for _, loss in losses]).sum())
        return [(task, loss.detach()) for task, loss in losses]

    def _check_finite(self, losses: list[tuple[str, Tensor]]) -> None:
        """Stop before a non-finite value reaches the parameters and the optimiser's state."""
        gradients = [p.grad.isfinite().all() for p in self.method.parameters() if p.grad is not None]
        finite = torch.stack([loss.isfinite() for _, loss in losses] + gradients)
        if finite.all():
            return
        culprits = [task for task, loss in losses if not loss.isfinite()] or sorted(
            {task for task, _ in losses}
        )
        what = "loss" if not finite[: len(losses)].all() else "gradient"
        lines = [f"The {what} is not finite at step {self.step}; the parameters were not updated."]
        for task in dict.fromkeys(culprits):
            where = f", images {self._indices(task, self.step).tolist()}" if self._indices else ""
            lines.append(f"  Task {task}{where}.")
        lines.append("  Look at these images, lower optimizer.lr, or use trainer.precision=32-true.")
        raise RunError("\n".join(lines))
