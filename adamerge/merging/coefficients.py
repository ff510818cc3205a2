"""The table of merging coefficients: one row per layer (or one for all) and one column per task vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Granularity = Literal["task", "layer"]


def hard_clamp(values: Tensor) -> Tensor:
    """Clamp to [0, 1] with the reference's gradient: 1 inside and at the bounds, 0 strictly outside.

    Written out because the gradient of torch.clamp at the bounds differs between versions of torch.
    """
    inside = (values >= 0.0) & (values <= 1.0)
    return torch.where(inside, values, values.detach().clamp(0.0, 1.0))


class Coefficients(nn.Module):
    """Trainable merging coefficients lambda (AdaMerging, arXiv 2310.02575, eq. 2 and 3).

    Args:
        layers: names of the L rows.
        tasks: names of the T columns.
        granularity: "task" learns one coefficient per task, "layer" one per layer and task.
        start: start value, one number or a table that broadcasts to (rows, T).
        clamp: hard clamp to [0, 1] in the forward pass. Its gradient is zero strictly outside the interval
            and passes at the bounds.

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
    ) -> None:
        super().__init__()
        if granularity not in ("task", "layer"):
            raise ValueError(f"granularity must be 'task' or 'layer', not {granularity!r}")
        self.layers = tuple(layers)
        self.tasks = tuple(tasks)
        self.granularity = granularity
        self.clamp = clamp
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
