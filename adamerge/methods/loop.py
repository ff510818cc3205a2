"""How a method is trained: the plain loop, and the one seam through which every loop updates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from adamerge.errors import RunError
from adamerge.methods.gradients import Gradients, Losses
from adamerge.objectives.objective import Objective
from adamerge.rounds.batch import Batch
from adamerge.rounds.schedule import Schedule

if TYPE_CHECKING:
    from adamerge.methods.base import Method

# Called with the parameters, or with the groups of `Method.parameter_groups`, as torch's optimisers are.
OptimizerFactory = Callable[[Iterable[Any]], Optimizer]
Indices = Callable[[str, int], Tensor]
# {task: {"images": (n, 3, H, W) or an ImageSet, "target": (labels (n,),)}}
Labeled = Mapping[str, Mapping[str, Any]]

# A scale that starts at 65536 and is halved at each overflow is below every gradient long before.
_MOST_OVERFLOWS = 60


class Engine(Protocol):
    """What carries out the updates: it knows the device, the precision and the number of the step.

    Attributes:
        loss_scale: what gradients are multiplied with until the optimiser's step; None where they are not.
    """

    @property
    def step(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def loss_scale(self) -> float | None: ...

    def backward(self, loss: Tensor) -> None: ...

    def take(self, optimizer: Any) -> None:
        """One step of an optimiser; none where the scaled gradient overflowed."""
        ...


class Loop(nn.Module):
    """Minimises an objective over the method's trainable parts; what all loops share.

    A loop of one's own overrides `step`, and `make_optimizers` where it needs others; buffers that it registers as
    persistent are kept in the checkpoint.

    Args:
        method: the merged model; its parameters are the only ones trained.
        objective: loss on one batch of one task; summed over the batches and tasks that share an update.
        optimizer: called with the parameters; None for a loop that needs none.
        schedule: when to update and with how many images.
        engine: carries out the updates.
        teacher: the experts, for an objective that compares with them while a batch holds no target.
        labeled: a few labelled images of each task, for a loop that looks at them beside the stream.
        indices: (task, step) -> the images' indices, to name the culprits of a non-finite loss.

    Attributes:
        compares_itself: the loop makes what the objective compares with, so that nothing of the experts is needed.
        guarded_from: rounds that leave no model to judge behind them, as others build on what they make.
    """

    compares_itself = False

    def __init__(
        self,
        method: Method,
        objective: Objective,
        optimizer: OptimizerFactory | None,
        schedule: Schedule,
        engine: Engine,
        *,
        teacher: Method | None = None,
        labeled: Labeled | None = None,
        indices: Indices | None = None,
    ) -> None:
        super().__init__()
        self.method = method
        self.teacher = teacher
        self.objective = objective
        self.schedule = schedule
        self.engine = engine
        self.gradients = Gradients(method, objective, schedule, teacher)
        self.labeled = labeled or {}
        self._optimizer = optimizer
        self._indices = indices
        self._overflows = 0  # updates left out in a row

    @property
    def guarded_from(self) -> int:
        return 0

    @property
    def trained(self) -> list[nn.Parameter]:
        return [p for p in self.method.parameters() if p.requires_grad]

    def optimizer(self, parameters: Iterable[Any]) -> Optimizer:
        """A new optimiser of some parameters, or groups of them, as the configuration says.

        Raises:
            RunError: it says none.
        """
        if self._optimizer is None:
            raise RunError(f"{type(self).__name__} trains with an optimiser; give method.optimizer.")
        return with_initial_lr(self._optimizer(parameters))

    def make_optimizers(self) -> list[Optimizer]:
        """Those whose state a checkpoint keeps; `step` is given them in this order."""
        return [self.optimizer(self.method.parameter_groups())]

    def step(self, batches: Sequence[Batch], optimizers: Sequence[Any]) -> Losses:
        """One round.

        Args:
            batches: the round's images, one batch per task, not cut to size yet.
        """
        losses: Losses = []
        for group in self.schedule.groups(batches, self.engine.step):
            losses += self.update(group, optimizers[0])
        return losses

    def update(self, batches: Sequence[Batch], optimizer: Any) -> Losses:
        """One optimiser step on the summed loss; none where the batches hold nothing to learn from."""
        losses = self.minimise(optimizer, lambda: self.gradients.accumulate(batches, self.engine.backward))
        if losses:
            self.method.after_update()
        return losses

    def minimise(
        self, optimizer: Any, find: Callable[[], Losses], parameters: Sequence[nn.Parameter] | None = None
    ) -> Losses:
        """The seam of every update: gradients at zero, backward, nothing but finite numbers, a step.

        Args:
            optimizer: of what is updated.
            find: the losses, whose gradients it has brought to the parameters.
            parameters: those that may get a gradient; None is all that are trained.
        """
        self.prepare(optimizer)
        with nullcontext() if parameters is None else only(self.method, parameters):
            losses = find()
        if losses:
            updated = [p for group in optimizer.param_groups for p in group["params"]]
            self.check_finite(losses, [p.grad for p in updated if p.grad is not None])
            self.engine.take(optimizer)
        return losses

    def prepare(self, optimizer: Any) -> None:
        """The learning rate of this step, and gradients at zero."""
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * self.schedule.factor(self.engine.step)
        if not self.schedule.zero_fill:
            optimizer.zero_grad()
            return
        optimizer.zero_grad(set_to_none=False)
        for parameter in self.trained:
            # After a resume there is momentum but no gradient yet to fill with zeros.
            if parameter.grad is None and optimizer.state.get(parameter):
                parameter.grad = torch.zeros_like(parameter)

    def check_finite(self, losses: Losses, gradients: Sequence[Tensor]) -> None:
        """Stop before a non-finite value reaches the parameters and the optimiser's state.

        Under loss scaling (16-mixed) an infinite gradient only says that the scale is too large: the scaler leaves
        the step out and lowers it. A loss that is not finite, or a gradient that no scale makes finite, is a fault.
        """
        each = [loss.isfinite() for _, loss in losses] + [gradient.isfinite().all() for gradient in gradients]
        finite = torch.stack(each)
        if finite.all():
            self._overflows = 0
            return
        if self.engine.loss_scale is not None and finite[: len(losses)].all():
            self._overflows += 1
            if self._overflows <= _MOST_OVERFLOWS:
                return
        culprits = [task for task, loss in losses if not loss.isfinite()] or sorted(
            {task for task, _ in losses}
        )
        step = self.engine.step
        what = "loss" if not finite[: len(losses)].all() else "gradient"
        lines = [f"The {what} is not finite at step {step}; the parameters were not updated."]
        for task in dict.fromkeys(culprits):
            where = f", images {self._indices(task, step).tolist()}" if self._indices else ""
            lines.append(f"  Task {task}{where}.")
        lines.append("  Look at these images, lower method.optimizer.lr, or use trainer.precision=32-true.")
        raise RunError("\n".join(lines))


def with_initial_lr(optimizer: Optimizer) -> Optimizer:
    """Notes each group's learning rate as its initial one, which a resumed run then finds again."""
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    return optimizer


@contextmanager
def only(method: nn.Module, trained: Sequence[nn.Parameter]) -> Iterator[None]:
    """Inside the block no other parameter of the method gets a gradient."""
    before = {p: p.requires_grad for p in method.parameters()}
    kept = set(trained)
    for parameter in before:
        parameter.requires_grad_(parameter in kept)
    try:
        yield
    finally:
        for parameter, state in before.items():
            parameter.requires_grad_(state)
