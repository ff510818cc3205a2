"""Concrete AdaMerging: the mask is learned so that one step on the coefficients helps, then the coefficients alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from adamerge.methods.base import Method
from adamerge.methods.concrete import Concrete
from adamerge.objectives.objective import Objective
from adamerge.training.adaptation import Adaptation, Indices, OptimizerFactory, summed, with_initial_lr
from adamerge.training.batch import Batch, Given
from adamerge.training.gradients import Losses
from adamerge.training.schedule import Schedule


class Bilevel(Adaptation):
    """Two stages (arXiv 2312.06173, algorithm 1).

    Stage 1, `meta_steps` rounds. Inner: one step of Adam with `inner_lr` on the coefficients, from their start value,
    by the loss on a task's first batch. Outer: one step of the optimiser on the mask's logits by the loss on its last
    batch. A model whose coefficients are fixed has no inner step.

    Stage 2, the remaining rounds: the last mask stays; the coefficients start again and are learned as in AdaMerging,
    from the first batches.

    As in both public implementations the coefficients' reset is not followed by a merge: the inner loss (and the
    clamp in its gradient) is that of the previous round's coefficients, only Adam starts from the start value.

    Args:
        meta_steps: rounds of stage 1; the schedule's steps less these are stage 2. None: all rounds.
        inner_lr: learning rate of the inner step; Adam's state is kept from round to round.
        final_lr: learning rate of stage 2; None is the mask's.
        fresh_mask: whether a mask is drawn between the inner and the outer step, as in the authors' code. False: one
            mask serves both (FusionBench).
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
        meta_steps: int | None,
        inner_lr: float = 1.0,
        final_lr: float | None = None,
        fresh_mask: bool = True,
    ) -> None:
        super().__init__(method, objective, optimizer, schedule, indices, teacher)
        self.meta_steps = schedule.steps if meta_steps is None else meta_steps
        self.inner_lr = inner_lr
        self.final_lr = final_lr
        self.fresh_mask = fresh_mask
        self.learns_coefficients = method.merging.values.requires_grad
        self.start: Tensor
        self.register_buffer("start", method.merging.values.detach().clone(), persistent=False)

    def configure_optimizers(self) -> Any:
        return [with_initial_lr(optimizer) for optimizer in self.make_optimizers()]

    def make_optimizers(self) -> list[Optimizer]:
        """Of the mask, of the inner step, of stage 2; subclasses add theirs."""
        coefficients = [self.method.merging.values]
        outer = self._optimizer(self.method.logits_of_mask.parameters())
        inner = torch.optim.Adam(coefficients, lr=self.inner_lr)
        final = self._optimizer(coefficients)
        if self.final_lr is not None:
            for group in final.param_groups:
                group["lr"] = self.final_lr
        return [outer, inner, final]

    def training_step(self, stream: dict[str, Given], batch_idx: int) -> None:
        parts = [list(Batch.of(t, g).split(self.schedule.batch_size)) for t, g in stream.items()]
        optimizers: Any = self.optimizers()
        outer, inner, final, *others = optimizers
        if self.step < self.meta_steps:
            if self.learns_coefficients:
                self.coefficient_step(nth(parts, 0), inner, restart=True)
                if self.fresh_mask:
                    self.method.after_update()
            losses = self.outer_step(parts, outer, *others)
            self.method.after_update()
        else:
            if self.step == self.meta_steps:
                self.method.settled.fill_(True)
                self.method.merging.values.data.copy_(self.start)
            losses = self.coefficient_step(nth(parts, 0), final)
        self.finish_step(summed(losses))

    def coefficient_step(self, batches: Sequence[Batch], optimizer: Any, restart: bool = False) -> Losses:
        """One step on the coefficients; `restart` puts them back to their start after the loss, before the step."""
        return self.minimise(batches, [self.method.merging.values], optimizer, restart)

    def outer_step(self, parts: Sequence[Sequence[Batch]], optimizer: Any, *others: Any) -> Losses:
        """One step on the mask's logits; `others` are the optimisers that a subclass adds."""
        return self.minimise(nth(parts, -1), list(self.method.logits_of_mask), optimizer)

    def minimise(
        self,
        batches: Sequence[Batch],
        parameters: list[nn.Parameter],
        optimizer: Any,
        restart: bool = False,
        left: Tensor | None = None,
    ) -> Losses:
        """One optimiser step on `parameters` alone; to the first one's gradient `left` is added."""
        self.prepare(optimizer)
        if left is not None:
            parameters[0].grad = left
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


def nth(parts: Sequence[Sequence[Batch]], number: int) -> list[Batch]:
    """Each task's batch of that number in the round; where a task has too few images for so many, its nearest."""
    return [own[max(-len(own), min(number, len(own) - 1))] for own in parts]
