"""Models whose encoder is not trained: a static merge, the individual experts, or an encoder from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from adamerge.merging import Pool
from adamerge.methods.base import Method
from adamerge.rules.linear import Individual


class Static(Method):
    """base + coefficient * sum_k tau_k, or one encoder per task where the rule gives that.

    Args:
        deep: representations hold the token means after every residual block.
    """

    def __init__(self, pool: Pool, deep: bool = False) -> None:
        super().__init__(pool)
        self.deep = deep
        self._merged: tuple[str | None, dict[str, Tensor]] | None = None

    @property
    def frozen_encoder(self) -> bool:
        return True

    def merge(self, task: str | None = None) -> dict[str, Tensor]:
        task = task if self.pool.by_task else None
        # The last one is kept, never one per task: T experts would need T times the memory of the model.
        if self._merged is None or self._merged[0] != task:
            self._merged = (task, self.pool.static(task))
        return self._merged[1]

    def kept(self) -> Pool | None:
        return self._static_pool() if self._plain else None

    def _static_pool(self) -> Pool:
        """The encoder that the parts stand on, or that of each task."""
        return replace(self.pool, finished=True) if self.pool.by_task else self._merged_pool()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self._merged = None
        return super()._apply(fn, recurse)


def experts(pool: Pool, deep: bool = False) -> Static:
    """The individual models of a pool that no rule has changed: the teachers. Each is base + its task vector."""
    return Static(Individual()(pool), deep)


class Fixed(Method):
    """A given encoder with the pool's heads."""

    def __init__(self, pool: Pool, state: Mapping[str, Tensor]) -> None:
        super().__init__(pool)
        self.state = {**pool.base, **state}

    def merge(self, task: str | None = None) -> dict[str, Tensor]:
        return {key: value.to(self.pool.base[key].device) for key, value in self.state.items()}
