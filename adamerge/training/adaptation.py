"""Test-time adaptation of a merged model on unlabeled images, as a LightningModule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from adamerge.errors import RunError
from adamerge.methods.base import Method
from adamerge.objectives.objective import Objective
from adamerge.training.batch import Batch, Given
from adamerge.training.gradients import Gradients, Losses
from adamerge.training.schedule import Schedule
from adamerge.training.steps import StepModule

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
Indices = Callable[[str, int], Tensor]


# A scale that starts at 65536 and is halved at each overflow is below every gradient long before.
_MOST_OVERFLOWS = 60


class Adaptation(StepModule):
    """Minimises an objective over the method's trainable parts.

    Args:
        method: the merged model; its parameters are the only ones trained.
        objective: loss on one batch of one task; summed over the batches and tasks that share an update.
        optimizer: called with the parameters.
        schedule: when to update and with how many images.
        indices: (task, step) -> the images' indices, to name the culprits of a non-finite loss.
        teacher: the experts, for an objective that compares with them while the stream gives no targets.
    """

    def __init__(
        self,
        method: Method,
        objective: Objective,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        indices: Indices | None = None,
        teacher: Method | None = None,
    ) -> None:
        super().__init__()
        self.method = method
        self.teacher = teacher
        self.objective = objective
        self.schedule = schedule
        self.gradients = Gradients(method, objective, schedule, teacher)
        # {task: {"images", "target"}} for methods that look at a few labels; images by rows, tensor or ImageSet.
        self.labeled: Mapping[str, Any] = {}
        self._optimizer = optimizer
        self._indices = indices
        self._overflows = 0  # updates left out in a row

    @property
    def loss_scale(self) -> float:
        """What the gradients are multiplied with until the optimiser's step."""
        return 1.0 if self.scaler is None else self.scaler.get_scale()

    @property
    def trained(self) -> list[nn.Parameter]:
        return [p for p in self.method.parameters() if p.requires_grad]

    def configure_optimizers(self) -> Any:
        return with_initial_lr(self._optimizer(self.trained))

    def on_train_start(self) -> None:
        # Lightning keeps the mode it finds; some parts (a router's dropout) differ while they are trained.
        self.method.train()

    def on_train_end(self) -> None:
        self.method.eval()

    def training_step(self, stream: dict[str, Given], batch_idx: int) -> None:
        batches = [Batch.of(task, given) for task, given in stream.items()]
        losses: Losses = []
        for group in self.schedule.groups(batches, self.step):
            losses += self.update(group, self.optimizers())
        self.finish_step(summed(losses))

    def update(self, batches: Sequence[Batch], optimizer: Any) -> Losses:
        """One optimiser step on the summed loss; none where the batches hold nothing to learn from."""
        self.prepare(optimizer)
        losses = self.gradients.accumulate(batches, self.manual_backward)
        if losses:
            self.check_finite(losses)
            self.take_step(optimizer)
            self.method.after_update()
        return losses

    def prepare(self, optimizer: Any) -> None:
        """The learning rate of this step, and gradients at zero."""
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * self.schedule.factor(self.step)
        if not self.schedule.zero_fill:
            optimizer.zero_grad()
            return
        optimizer.zero_grad(set_to_none=False)
        for parameter in self.trained:
            # After a resume there is momentum but no gradient yet to fill with zeros.
            if parameter.grad is None and optimizer.state.get(parameter):
                parameter.grad = torch.zeros_like(parameter)

    def check_finite(self, losses: Losses) -> None:
        """Stop before a non-finite value reaches the parameters and the optimiser's state.

        Under loss scaling (16-mixed) an infinite gradient only says that the scale is too large: the scaler leaves
        the step out and lowers it. A loss that is not finite, or a gradient that no scale makes finite, is a fault.
        """
        gradients = [p.grad.isfinite().all() for p in self.method.parameters() if p.grad is not None]
        finite = torch.stack([loss.isfinite() for _, loss in losses] + gradients)
        if finite.all():
            self._overflows = 0
            return
        if self.scaler is not None and finite[: len(losses)].all():
            self._overflows += 1
            if self._overflows <= _MOST_OVERFLOWS:
                return
        culprits = [task for task, loss in losses if not loss.isfinite()] or sorted(
            {task for task, _ in losses}
        )
        what = "loss" if not finite[: len(losses)].all() else "gradient"
        lines = [f"The {what} is not finite at step {self.step}; the parameters were not updated."]
        for task in dict.fromkeys(culprits):
            where = f", images {self._indices(task, self.step).tolist()}" if self._indices else ""
            lines.append(f"  Task {task}{where}.")
        lines.append("  Look at these images, lower method.optimizer.lr, or use trainer.precision=32-true.")
        raise RunError("\n".join(lines))


def with_initial_lr(optimizer: Optimizer) -> Optimizer:
    """Notes each group's learning rate as its initial one, which a resumed run then finds again."""
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    return optimizer


def summed(losses: Losses) -> dict[str, Tensor]:
    """Each task's losses added up."""
    sums: dict[str, Tensor] = {}
    for task, loss in losses:
        sums[task] = sums[task] + loss if task in sums else loss
    return sums
