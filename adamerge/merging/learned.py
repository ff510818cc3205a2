"""Merging coefficients that are learned: one per task vector, or one per layer and task vector (AdaMerging)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from adamerge.errors import PoolError
from adamerge.merging.coefficients import Coefficients
from adamerge.merging.layers import Layout, layer_table, row_names
from adamerge.merging.pool import Pool

Granularity = Literal["task", "layer"]


def hard_clamp(values: Tensor) -> Tensor:
    """Clamp to [0, 1] with the reference's gradient: 1 inside and at the bounds, 0 strictly outside.

    Written out because the gradient of torch.clamp at the bounds differs between versions of torch.
    """
    inside = (values >= 0.0) & (values <= 1.0)
    return torch.where(inside, values, values.detach().clamp(0.0, 1.0))


class LearnedCoefficients(nn.Module):
    """Trainable merging coefficients lambda (AdaMerging, arXiv 2310.02575, eq. 2 and 3).

    Args:
        layers: names of the L rows.
        tasks: names of the T columns.
        granularity: "task" learns one coefficient per task, "layer" one per layer and task.
        start: start value, one number or a table that broadcasts to (rows, T).
        clamp: hard clamp to [0, 1] in the forward pass. Its gradient is zero strictly outside the interval
            and passes at the bounds.
        layout: what a layer is.
        lr: their own learning rate; None is that of whatever else is trained.

    `values` holds the raw table, (1, T) or (L, T); calling the module gives the table (L, T) that is merged with.
    """

    def __init__(
        self,
        layers: Sequence[str],
        tasks: Sequence[str],
        *,
        granularity: Granularity = "layer",
        start: float | Tensor = 0.3,
        clamp: bool = True,
        layout: Layout = "open_clip",
        lr: float | None = None,
    ) -> None:
        super().__init__()
        if granularity not in ("task", "layer"):
            raise ValueError(f"granularity must be 'task' or 'layer', not {granularity!r}")
        self.layers = tuple(layers)
        self.tasks = tuple(tasks)
        self.granularity = granularity
        self.clamp = clamp
        self.layout = layout
        self.lr = lr
        rows = 1 if granularity == "task" else len(self.layers)
        table = torch.as_tensor(start, dtype=torch.get_default_dtype())
        self.values = nn.Parameter(table.expand(rows, len(self.tasks)).clone())

    def forward(self) -> Tensor:
        table = hard_clamp(self.values) if self.clamp else self.values
        return table.expand(len(self.layers), -1)

    def named(self, table: Tensor) -> dict[str, dict[str, float]]:
        """{task: {layer: coefficient}} of the table (L, T) that is merged with; task-wise there is one row, "all"."""
        task_wise = self.granularity == "task"
        rows = ("all",) if task_wise else self.layers
        values = (table[:1] if task_wise else table).tolist()
        return {
            task: {row: values[i][column] for i, row in enumerate(rows)}
            for column, task in enumerate(self.tasks)
        }


def learned(
    pool: Pool,
    granularity: Granularity = "layer",
    start: float | Tensor | None = None,
    clamp: bool = True,
    layout: Layout = "open_clip",
    lr: float | None = None,
) -> LearnedCoefficients:
    """Coefficients to learn for a pool: the part that any method may train beside its own.

    Args:
        pool: after any rule that keeps one encoder.
        granularity: "task" (AdaMerging, eq. 2) or "layer" (eq. 3).
        start: start value of every coefficient; None takes the rule's own.
        clamp: hard clamp to [0, 1] in the forward pass.
        layout: "open_clip" has one row per tensor, "hf" splits the fused attention projection into q, k, v.
        lr: their own learning rate; None is the optimiser's.

    Raises:
        PoolError: the rule gives one encoder per task, which leaves nothing to merge; or coefficients to start from
            that have more rows than are learned.
    """
    if pool.by_task:
        raise PoolError(
            "Merging coefficients say how to add task vectors into one encoder, but this rule keeps one encoder per "
            "task.\n  Choose rule=none, ties or another rule that merges."
        )
    return LearnedCoefficients(
        row_names(layer_table(pool.keys, layout)),
        pool.names,
        granularity=granularity,
        start=_rows(pool, pool.coefficients, granularity, layout) if start is None else start,
        clamp=clamp,
        layout=layout,
        lr=lr,
    )


def _rows(pool: Pool, start: Coefficients, granularity: Granularity, layout: Layout) -> Tensor:
    """The coefficients to start from, as many rows as are learned."""
    if granularity == "layer":
        return start.table(pool.keys, len(pool.names), layout)
    if len(start.values) > 1:
        raise PoolError(
            f"One coefficient per task cannot start from a table of {len(start.values)} layers.\n"
            "  Learn them with granularity=layer, or start from a task-wise run."
        )
    return start.values
