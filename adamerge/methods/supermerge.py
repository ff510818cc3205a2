"""SUPERMERGE: layer-wise coefficients learned from a few labels, bounded by tanh so that they may subtract."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from adamerge.errors import PoolError
from adamerge.merging import Pool
from adamerge.merging.layers import Layout
from adamerge.methods.adamerging import AdaMerging
from adamerge.methods.gradients import Losses
from adamerge.methods.loop import Loop
from adamerge.objectives.labels import CrossEntropy
from adamerge.objectives.objective import Objective
from adamerge.rounds.batch import Batch


class SuperMerge(AdaMerging):
    """theta_l = theta_0,l + sum_k tanh(w_k,l) tau_k,l (arXiv 2412.10416).

    Hierarchical, groups of experts are merged first, then the merged models in their turn:

        theta_l = theta_0,l + sum_g tanh(u_g,l) sum_{k in g} tanh(w_k,l) tau_k,l

    Args:
        pool: after any rule that keeps one encoder.
        start: start value of the coefficients tanh(w), in (-1, 1); None takes the rule's own.
        group_size: experts of a group, in their order; None merges all at once.

    Raises:
        ValueError: a start that tanh cannot reach.
        PoolError: coefficients of the rule or of `start` that it cannot reach.
    """

    def __init__(
        self,
        pool: Pool,
        start: float | None = 0.3,
        layout: Layout = "open_clip",
        group_size: int | None = None,
    ) -> None:
        if start is not None and not -1.0 < start < 1.0:
            raise ValueError(f"start is a coefficient in (-1, 1), not {start}")
        super().__init__(
            pool, "layer", _atanh(pool, layout) if start is None else math.atanh(start), False, layout
        )
        count = len(pool.names)
        size = count if group_size is None else group_size
        self.groups = tuple(tuple(range(i, min(i + size, count))) for i in range(0, count, size))
        self.group: int | None = None  # while one group is merged alone
        # The merged groups start as the experts do, but not where the experts' start is a table.
        value = 0.3 if start is None else start
        shape = (len(self.merging.values), len(self.groups))
        self.outer = None if group_size is None else nn.Parameter(torch.full(shape, math.atanh(value)))

    def table(self) -> Tensor:
        inner: Tensor = self.merging().tanh()
        if self.outer is None:
            return inner
        if self.group is not None:
            return inner * self._members(self.group)
        factors = self.outer.tanh()
        return inner * torch.stack([factors[:, self._group_of(k)] for k in range(inner.shape[1])], dim=1)

    @property
    def loop(self) -> type[Loop]:
        return Loop if self.outer is None else Hierarchical

    @property
    def objective(self) -> Objective:
        return CrossEntropy()

    def _group_of(self, expert: int) -> int:
        return next(g for g, members in enumerate(self.groups) if expert in members)

    def _members(self, group: int) -> Tensor:
        """1 for the experts of a group, 0 for the others (T,)."""
        values = self.merging.values
        return values.new_tensor([float(k in self.groups[group]) for k in range(values.shape[1])])


def _atanh(pool: Pool, layout: Layout) -> Tensor:
    """The rule's own coefficients (rows, T) as tanh's arguments."""
    values = pool.coefficients.values
    if (values.abs() < 1.0).all():
        return pool.coefficients.table(pool.keys, len(pool.names), layout).atanh()
    raise PoolError(
        "SUPERMERGE's coefficients are tanh(w), between -1 and 1; of those it should start from "
        f"{int((values.abs() >= 1.0).sum())} are not, e.g. {float(values.abs().max()):g}.\n"
        "  Start from another rule or file, or leave start at null."
    )


class Hierarchical(Loop):
    """Two levels (arXiv 2412.10416).

    In the first `group_steps` rounds each group of experts is merged from the base by itself, judged by the group's
    own tasks; in the rest the merged groups are, judged by all tasks, their own coefficients at rest.

    Args:
        group_steps: rounds of the first level, out of the schedule's steps; None is half of them.
    """

    method: SuperMerge

    def __init__(self, *args: Any, group_steps: int | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.method.outer is None:
            raise ValueError(
                "the hierarchical mode needs groups; give method.model.group_size=<experts of a group>"
            )
        self.group_steps = self.schedule.steps // 2 if group_steps is None else group_steps

    def make_optimizers(self) -> list[Optimizer]:
        parts = (self.method.merging.values, self.method.outer)
        return [self.optimizer([part]) for part in parts if part is not None]

    def step(self, batches: Sequence[Batch], optimizers: Sequence[Any]) -> Losses:
        parts = [part for batch in batches for part in batch.split(self.schedule.batch_size)]
        if self.engine.step < self.group_steps:
            return self.minimise(optimizers[0], lambda: self.of_groups(parts), [self.method.merging.values])
        assert self.method.outer is not None
        return self.minimise(
            optimizers[1],
            lambda: self.gradients.accumulate(parts, self.engine.backward),
            [self.method.outer],
        )

    def of_groups(self, batches: list[Batch]) -> Losses:
        """Each group's loss on its own tasks, at the encoder that is merged of it alone."""
        losses: Losses = []
        for number, members in enumerate(self.method.groups):
            names = {self.method.pool.names[k] for k in members}
            own = [batch for batch in batches if batch.task in names]
            if not own:
                continue
            self.method.group = number
            try:
                losses += self.gradients.accumulate(own, self.engine.backward)
            finally:
                self.method.group = None
        return losses
