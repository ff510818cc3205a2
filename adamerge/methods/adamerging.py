"""AdaMerging: learn the merging coefficients by entropy minimisation (arXiv 2310.02575, ICLR 2024).

After the rule `ties` it is AdaMerging++.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from adamerge.errors import PoolError
from adamerge.merging import Coefficients, Pool, layer_table, merge_tensors
from adamerge.merging.coefficients import Granularity
from adamerge.merging.layers import Layout, row_names
from adamerge.methods.base import Method


class AdaMerging(Method):
    """Task-wise (eq. 2) or layer-wise (eq. 3) merging coefficients.

    Args:
        pool: base, task vectors and heads, after any rule that keeps one encoder.
        granularity: "task" or "layer".
        start: start value of every coefficient; None takes the rule's own coefficient.
        clamp: hard clamp of the coefficients to [0, 1] in the forward pass.
        layout: "open_clip" has one row per tensor, "hf" splits the fused attention projection into q, k, v.

    Raises:
        PoolError: the rule gives one encoder per task, which leaves nothing to merge.
    """

    def __init__(
        self,
        pool: Pool,
        granularity: Granularity = "layer",
        start: float | Tensor | None = 0.3,
        clamp: bool = True,
        layout: Layout = "open_clip",
    ) -> None:
        super().__init__(pool)
        if pool.by_task:
            raise PoolError(
                f"{type(self).__name__} learns how to add task vectors into one encoder, but this rule keeps one "
                "encoder per task.\n  Choose rule=none, ties or another rule that merges."
            )
        self.layers = layer_table(pool.keys, layout)
        self.merging = Coefficients(
            row_names(self.layers),
            pool.names,
            granularity=granularity,
            start=pool.coefficient if start is None else start,
            clamp=clamp,
        )

    def table(self) -> Tensor:
        """The merging coefficients (rows, T) that are merged with."""
        return self.merging()  # type: ignore[no-any-return]

    def merge(self, task: str | None = None) -> dict[str, Tensor]:
        return self.merge_onto(self.pool.base)

    def merge_onto(self, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """base[l] + sum_k lambda[l, k] tau[k, l]."""
        return merge_tensors(self.table(), base, self.pool.vectors, self.layers)

    def coefficients(self) -> dict[str, dict[str, float]]:
        return self.merging.named(self.table())
