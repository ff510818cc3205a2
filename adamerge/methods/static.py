"""Models with nothing to train: a static merge, or an encoder from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from adamerge.merging import Pool
from adamerge.methods.base import Method


class Static(Method):
    """base + coefficient * sum_k tau_k, or one encoder per task where the rule gives that."""

    def merge(self, task: str | None = None) -> dict[str, Tensor]:
        return self.pool.static(task)


class Fixed(Method):
    """A given encoder with the pool's heads."""

    def __init__(self, pool: Pool, state: Mapping[str, Tensor]) -> None:
        super().__init__(pool)
        self.state = {**pool.base, **state}

    def merge(self, task: str | None = None) -> dict[str, Tensor]:
        return {key: value.to(self.pool.base[key].device) for key, value in self.state.items()}
