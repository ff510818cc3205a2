"""Concrete subspace learning: a mask shared by the tasks selects where the task vectors agree (arXiv 2312.06173)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from adamerge.merging import Pool
from adamerge.merging.layers import Layout
from adamerge.merging.learned import Granularity
from adamerge.merging.masks import binary_mask, concrete_mask, uniform_noise
from adamerge.methods.adamerging import AdaMerging
from adamerge.methods.gradients import Losses
from adamerge.methods.loop import Loop, with_initial_lr
from adamerge.rounds.batch import Batch


class Concrete(AdaMerging):
    """theta = theta_0 + m / mean(m) * sum_k lambda_k tau_k with a relaxed Bernoulli mask m per tensor.

    The mask is drawn anew after each update. A draw is a pure function of the seed and the draw's
    number, both of which are saved, so that a restored model has the mask it was saved with.

    Args:
        pool: after any rule that keeps one encoder.
        temperature: of the relaxed Bernoulli distribution.
        train_coefficients: Concrete TA keeps them at their start, Concrete AdaMerging learns them as well.
        final_mask: what predicts, and what the coefficients are learned under once the mask is settled: the last
            "relaxed" draw, or the "binary" one of the same noise, a Bernoulli sample (the limit of temperature 0).
        granularity, start, clamp, layout: of the coefficients, as in AdaMerging.
    """

    def __init__(
        self,
        pool: Pool,
        temperature: float = 0.5,
        train_coefficients: bool = False,
        granularity: Granularity = "layer",
        start: float | Tensor | None = 0.3,
        clamp: bool = True,
        layout: Layout = "open_clip",
        final_mask: Literal["relaxed", "binary"] = "relaxed",
    ) -> None:
        super().__init__(pool, granularity, start, clamp, layout)
        self.final_mask = final_mask
        self.merging.requires_grad_(train_coefficients)
        self.temperature = temperature
        self.logits_of_mask = nn.ParameterList(torch.zeros_like(pool.base[key]) for key in pool.keys)
        self.seed: Tensor
        self.draw: Tensor
        self.register_buffer("seed", torch.randint(2**31, ()))
        self.register_buffer("draw", torch.zeros((), dtype=torch.long))
        self.settled: Tensor
        self.register_buffer("settled", torch.zeros((), dtype=torch.bool))

    def merge(self, task: str | None = None) -> dict[str, Tensor]:
        zeros = {key: torch.zeros_like(self.pool.base[key]) for key in self.pool.keys}
        merged = self.merge_onto(zeros)
        return {key: self.pool.base[key] + self.mask(i) * merged[key] for i, key in enumerate(self.pool.keys)}

    def mask(self, index: int) -> Tensor:
        """The current mask of a tensor, with mean 1."""
        logits = self.logits_of_mask[index]
        noise = uniform_noise(logits, int(self.seed), self.pool.keys[index], int(self.draw))
        if self.final_mask == "binary" and (bool(self.settled) or not self.training):
            return binary_mask(logits, noise)
        return concrete_mask(logits, noise, self.temperature)

    def after_update(self) -> None:
        self.draw += 1

    @property
    def loop(self) -> type[Loop]:
        return Bilevel if self.merging.values.requires_grad else Loop


class Bilevel(Loop):
    """The mask is learned so that one step on the coefficients helps, then the coefficients alone.

    Two stages (arXiv 2312.06173, algorithm 1).

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
        *args: Any,
        meta_steps: int | None = None,
        inner_lr: float = 1.0,
        final_lr: float | None = None,
        fresh_mask: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.meta_steps = self.schedule.steps if meta_steps is None else meta_steps
        self.inner_lr = inner_lr
        self.final_lr = final_lr
        self.fresh_mask = fresh_mask
        values = self.method.merging.values
        self.learns_coefficients = values.requires_grad
        self.start: Tensor
        self.register_buffer("start", values.detach().clone(), persistent=False)

    @property
    def guarded_from(self) -> int:
        # Until then the coefficients stand where an inner step from their start has put them.
        return self.meta_steps if self.learns_coefficients else 0

    def make_optimizers(self) -> list[Optimizer]:
        """Of the mask, of the inner step, of stage 2; subclasses add theirs."""
        coefficients = [self.method.merging.values]
        outer = self.optimizer(self.method.logits_of_mask.parameters())
        inner = with_initial_lr(torch.optim.Adam(coefficients, lr=self.inner_lr))
        final = self.optimizer(coefficients)
        if self.final_lr is not None:
            for group in final.param_groups:
                group["lr"] = group["initial_lr"] = self.final_lr
        return [outer, inner, final]

    def step(self, batches: Sequence[Batch], optimizers: Sequence[Any]) -> Losses:
        parts = [list(batch.split(self.schedule.batch_size)) for batch in batches]
        outer, inner, final, *others = optimizers
        if self.engine.step < self.meta_steps:
            if self.learns_coefficients:
                self.coefficient_step(nth(parts, 0), inner, restart=True)
                if self.fresh_mask:
                    self.method.after_update()
            losses = self.outer_step(parts, outer, *others)
            self.method.after_update()
        else:
            if self.engine.step == self.meta_steps:
                self.method.settled.fill_(True)
                self.method.merging.values.data.copy_(self.start)
            losses = self.coefficient_step(nth(parts, 0), final)
        return losses

    def coefficient_step(self, batches: Sequence[Batch], optimizer: Any, restart: bool = False) -> Losses:
        """One step on the coefficients; `restart` puts them back to their start after the loss, before the step."""
        values = self.method.merging.values

        def find() -> Losses:
            losses = self.gradients.accumulate(batches, self.engine.backward)
            if restart:
                values.data.copy_(self.start)
            return losses

        return self.minimise(optimizer, find, [values])

    def outer_step(self, parts: Sequence[Sequence[Batch]], optimizer: Any, *others: Any) -> Losses:
        """One step on the mask's logits; `others` are the optimisers that a subclass adds."""
        return self.minimise(
            optimizer,
            lambda: self.gradients.accumulate(nth(parts, -1), self.engine.backward),
            list(self.method.logits_of_mask),
        )


def nth(parts: Sequence[Sequence[Batch]], number: int) -> list[Batch]:
    """Each task's batch of that number in the round; where a task has too few images for so many, its nearest."""
    return [own[max(-len(own), min(number, len(own) - 1))] for own in parts]
