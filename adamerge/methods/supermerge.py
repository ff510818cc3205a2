"""SUPERMERGE: layer-wise coefficients learned from a few labels, bounded by tanh so that they may subtract."""

from __future__ import annotations

import math

from torch import Tensor

from adamerge.merging import Pool
from adamerge.merging.layers import Layout
from adamerge.methods.adamerging import AdaMerging


class SuperMerge(AdaMerging):
    """theta_l = theta_0,l + sum_k tanh(w_k,l) tau_k,l (arXiv 2412.10416; static reference 3.25).

    Args:
        pool: after any rule that keeps one encoder.
        start: start value of the coefficients tanh(w), in (-1, 1).
    """

    def __init__(self, pool: Pool, start: float = 0.3, layout: Layout = "open_clip") -> None:
        if not -1.0 < start < 1.0:
            raise ValueError(f"start is a coefficient in (-1, 1), not {start}")
        super().__init__(pool, "layer", math.atanh(start), clamp=False, layout=layout)

    def table(self) -> Tensor:
        return self.merging().tanh()  # type: ignore[no-any-return]
