"""ProDistill: a coefficient for every single parameter, distilled from the experts block by block."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adamerge.errors import PoolError
from adamerge.merging import Pool
from adamerge.methods.base import Method
from adamerge.models.blocks import blocks


class ElementWise(Method):
    """theta = theta_0 + sum_k lambda_k * tau_k with an element-wise lambda_k in the blocks; elsewhere the rule's own.

    Args:
        pool: after any rule that keeps one encoder and whose coefficient is one number.
        start: start value of every coefficient in the blocks; None takes the rule's.

    Raises:
        PoolError: a rule that gives something else.
    """

    def __init__(self, pool: Pool, start: float | None = 0.3) -> None:
        super().__init__(pool)
        if pool.by_task or (isinstance(pool.coefficient, Tensor) and pool.coefficient.ndim):
            raise PoolError("ProDistill starts from one coefficient, which this rule or start does not give.")
        blocks(pool.encoder)  # refuses an encoder without
        names = pool.backbone.names
        value = float(pool.coefficient) if start is None else start
        self.inner = tuple(key for key in pool.keys if names.block_of(key) is not None)
        self.scales = nn.ParameterList(
            torch.full_like(pool.vectors[key], value, dtype=pool.base[key].dtype) for key in self.inner
        )

    def merge(self, task: str | None = None) -> dict[str, Tensor]:
        static = self.pool.static()
        return {**{key: static[key] for key in self.pool.keys}, **self.merged_block(None)}

    def merged_block(self, index: int | None) -> dict[str, Tensor]:
        """The merged tensors of one block, or of all."""
        names = self.pool.backbone.names
        merged = {}
        for key, scale in zip(self.inner, self.scales, strict=True):
            if index is None or names.block_of(key) == index:
                base = self.pool.base[key]
                merged[key] = base + (scale * self.pool.vectors[key]).sum(dim=0).view(base.shape).to(
                    base.dtype
                )
        return merged

    def fixed_of(self, index: int) -> dict[str, Tensor]:
        """A block's tensors that no expert changed."""
        names = self.pool.backbone.names
        return {key: value for key, value in self.pool.fixed.items() if names.block_of(key) == index}
