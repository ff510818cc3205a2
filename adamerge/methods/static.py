"""Models whose encoder is not trained: a static merge, the individual experts, or an encoder from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from adamerge.merging import Pool
from adamerge.methods.base import Method
from adamerge.methods.with_coefficients import WithCoefficients
from adamerge.rules.linear import Individual


class Static(WithCoefficients):
    """base + coefficient * sum_k tau_k, or one encoder per task where the rule gives that.

    Args:
        block_means: representations hold the token means after every residual block.
    """

    def __init__(self, pool: Pool, block_means: bool = False) -> None:
        super().__init__(pool)
        self.block_means = block_means


def experts(pool: Pool, block_means: bool = False) -> Static:
    """The individual models of a pool that no rule has changed: the teachers. Each is base + its task vector."""
    return Static(Individual()(pool), block_means)


class Fixed(Method):
    """A given encoder with the pool's heads."""

    def __init__(self, pool: Pool, state: Mapping[str, Tensor]) -> None:
        super().__init__(pool)
        self.state = {**pool.base, **state}

    def merge(self, task: str | None = None) -> dict[str, Tensor]:
        return {key: value.to(self.pool.base[key].device) for key, value in self.state.items()}
