"""Concrete AdaMerging: the mask is learned so that one step on the coefficients helps, then the coefficients alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from adamerge.losses import Objective
from adamerge.methods import Concrete, Method
from adamerge.training.adaptation import Adaptation, Indices, OptimizerFactory, summed, with_initial_lr
from adamerge.training.batch import Batch, Given
from adamerge.training.gradients import Losses
from adamerge.training.schedule import Schedule


class Bilevel(Adaptation):
    """Two stages (arXiv 2312.06173, algorithm 1).

    Stage 1, `meta_steps` rounds with two batches per task. Inner: one step of Adam with `inner_lr` on the coefficients,
    from their start value, by the loss on the first batches. Outer: one step of the optimiser on the mask's logits by
    the loss on the second batches. A mask is drawn after either.

    Stage 2, the remaining rounds: the last mask stays; the coefficients start again and are learned as in AdaMerging,
    from the first batches.

    As in both public implementations the coefficients' reset is not followed by a merge: the inner loss (and the
    clamp in its gradient) is that of the previous round's coefficients, only Adam starts from the start value.

    Args:
        meta_steps: rounds of stage 1; the schedule's steps less these are stage 2.
        inner_lr: learning rate of the inner step; Adam's state is kept from round to round.
    """

    method: Concrete

    def __init__(
        self,
        method: Concrete,
        objective: Objective,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        indices: Indices | None = None,
        teacher: Method | None = None,
        *,
        meta_steps: int,
        inner_lr: float = 1.0,
    ) -> None:
        super().__init__(method, objective, optimizer, schedule, indices, teacher)
        self.meta_steps = meta_steps
        self.inner_lr = inner_lr
        self.start: Tensor
        self.register_buffer("start", method.merging.values.detach().clone(), persistent=False)

    def configure_optimizers(self) -> Any:
        coefficients = [self.method.merging.values]
        outer = self._optimizer(self.method.logits_of_mask.parameters())
        inner = torch.optim.Adam(coefficients, lr=self.inner_lr)
        final = self._optimizer(coefficients)
        return [with_initial_lr(optimizer) for optimizer in (outer, inner, final)]

    def training_step(self, stream: dict[str, Given], batch_idx: int) -> None:
        halves = list(zip(*(_halves(Batch.of(t, g), self.schedule) for t, g in stream.items()), strict=True))
        optimizers: Any = self.optimizers()
        outer, inner, final, *others = optimizers
        coefficients = [self.method.merging.values]
        if self.step < self.meta_steps:
            self.minimise(halves[0], coefficients, inner, restart=True)
            self.method.after_update()
            losses = self.outer_step(halves[-1], outer, *others)
            self.method.after_update()
        else:
            if self.step == self.meta_steps:
                self.method.merging.values.data.copy_(self.start)
            losses = self.minimise(halves[0], coefficients, final)
        self.finish_step(summed(losses))

    def outer_step(self, batches: Sequence[Batch], optimizer: Any, *others: Any) -> Losses:
        """One step on the mask's logits; `others` are the optimisers that a subclass adds."""
        return self.minimise(batches, list(self.method.logits_of_mask), optimizer)

    def minimise(
        self, batches: Sequence[Batch], parameters: list[nn.Parameter], optimizer: Any, restart: bool = False
    ) -> Losses:
        """One optimiser step on `parameters` alone; `restart` puts the coefficients back before it."""
        self.prepare(optimizer)
        with only(self.method, parameters):
            losses = self.gradients.accumulate(batches, self.manual_backward)
        self.check_finite(losses)
        if restart:
            self.method.merging.values.data.copy_(self.start)
        self.take_step(optimizer)
        return losses


@contextmanager
def only(method: nn.Module, trained: Sequence[nn.Parameter]) -> Iterator[None]:
    """Inside the block no other parameter of the method gets a gradient."""
    before = {p: p.requires_grad for p in method.parameters()}
    chosen = set(trained)
    for parameter in before:
        parameter.requires_grad_(parameter in chosen)
    try:
        yield
    finally:
        for parameter, state in before.items():
            parameter.requires_grad_(state)


def _halves(batch: Batch, schedule: Schedule) -> tuple[Batch, Batch]:
    """A task's first and second batch of a round; the same one twice where the task has too few images for two."""
    parts = list(batch.split(schedule.batch_size))
    return parts[0], parts[-1]
