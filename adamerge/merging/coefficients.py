"""The merging coefficients of a static merge: lambda[l, k] of layer l and task vector k."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from adamerge.errors import PoolError
from adamerge.merging.layers import Layout, layer_table, row_count


@dataclass(frozen=True, eq=False)
class Coefficients:
    """What a static merge multiplies the task vectors with.

    Attributes:
        values: (rows, T): one row for all layers, or one per layer. One column serves all task vectors, so that (1, 1)
            is one number for everything.
        layout: what a layer is, where there is a row for each.
    """

    values: Tensor
    layout: Layout = "open_clip"

    def __post_init__(self) -> None:
        if self.values.ndim != 2:
            raise ValueError(f"coefficients are a table (rows, T), not {tuple(self.values.shape)}")

    @classmethod
    def everywhere(cls, value: float) -> Coefficients:
        """The same number for every layer and task vector."""
        return cls(torch.tensor([[value]], dtype=torch.get_default_dtype()))

    @property
    def is_one_number(self) -> bool:
        return self.values.numel() == 1

    @property
    def number(self) -> float:
        """The one number that they are.

        Raises:
            PoolError: they are not.
        """
        if not self.is_one_number:
            rows, columns = self.values.shape
            raise PoolError(f"One merging coefficient is needed here, not a table of {rows} x {columns}.")
        return float(self.values)

    def table(self, keys: Iterable[str], count: int, layout: Layout | None = None) -> Tensor:
        """One row for each layer of the tensors at `keys`, one column for each of `count` task vectors.

        Args:
            layout: what a layer is there; their own when left out. A fused projection's row serves q, k and v alike.

        Raises:
            PoolError: rows that are not the layers', or q, k and v apart where a layer has them together.
        """
        keys = tuple(keys)
        wanted = layer_table(keys, layout or self.layout)
        if len(self.values) == 1:
            return self.values.expand(row_count(wanted), count)
        own = layer_table(keys, self.layout)
        if row_count(own) != len(self.values):
            raise PoolError(
                f"The table of coefficients has {len(self.values)} rows; this pool has {row_count(own)} layers."
            )
        rows = [self.values[layer.rows] for layer in own]
        sizes = [len(layer.names) for layer in wanted]
        if any(len(part) not in (1, size) for part, size in zip(rows, sizes, strict=True)):
            raise PoolError(
                "These coefficients have rows of their own for q, k and v, which are one layer here.\n"
                "  Learn on with layout=hf, which has them apart too."
            )
        parts = [part.expand(size, count) for part, size in zip(rows, sizes, strict=True)]
        return torch.cat(parts) if parts else self.values.new_zeros(0, count)


ONE = Coefficients.everywhere(1.0)
