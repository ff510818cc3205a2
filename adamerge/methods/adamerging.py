"""AdaMerging: learn the merging coefficients by entropy minimisation (arXiv 2310.02575, ICLR 2024).

After the rule `ties` it is AdaMerging++.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from adamerge.merging import LearnedCoefficients, Pool, learned
from adamerge.merging.layers import Layout
from adamerge.merging.learned import Granularity
from adamerge.methods.with_coefficients import WithCoefficients


class AdaMerging(WithCoefficients):
    """Task-wise (eq. 2) or layer-wise (eq. 3) merging coefficients, and nothing else.

    Args:
        pool: base, task vectors and heads, after any rule that keeps one encoder.
        granularity: "task" or "layer".
        start: start value of every coefficient; None takes the rule's own coefficient.
        clamp: hard clamp of the coefficients to [0, 1] in the forward pass.
        layout: "open_clip" has one row per tensor, "hf" splits the fused attention projection into q, k, v.

    Raises:
        PoolError: the rule gives one encoder per task, which leaves nothing to merge.
    """

    merging: LearnedCoefficients

    def __init__(
        self,
        pool: Pool,
        granularity: Granularity = "layer",
        start: float | Tensor | None = 0.3,
        clamp: bool = True,
        layout: Layout = "open_clip",
    ) -> None:
        super().__init__(
            pool, partial(learned, granularity=granularity, start=start, clamp=clamp, layout=layout)
        )
