"""Weights between models: WiSE-FT (arXiv 2109.01903, CVPR 2022) and interpolation as in UnIVAL (arXiv 2307.16184)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from adamerge.merging.task_vectors import TaskVectors, TensorRule, per_task
from adamerge.rules.rule import Rule
from adamerge.rules.shares import shares_of


@dataclass(frozen=True)
class WiseFT(Rule):
    """(1 - alpha) theta_0 + alpha theta_1, between the base and one expert; of several experts their mean is theta_1.

    Args:
        alpha: share of the expert. The authors recommend 0.5 where it is not chosen on validation pictures.
    """

    linear = True
    own_start = True

    alpha: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.alpha <= 1.0:
            raise ValueError(f"alpha is a share in [0, 1], not {self.alpha}")

    def coefficient(self, count: int) -> float:
        return self.alpha / count


@dataclass(frozen=True)
class Interpolation(Rule):
    """sum_t w_t theta_t with a share w_t for each expert, and what they leave of 1 for the base.

    Two experts with (1 - c, c) are UnIVAL's line between models. The vectors are T w_t tau_t, and their mean is the
    merge.

    Args:
        shares: by the experts' names, at least 0, with a sum of at most 1; None: equal ones, the average.

    Raises:
        PoolError: shares of other names than the experts'.
    """

    linear = True
    own_start = True

    shares: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        given = [] if self.shares is None else list(self.shares.values())
        total = math.fsum(given)
        if any(value < 0.0 for value in given) or total > 1.0 + 1e-6:
            raise ValueError(
                f"shares are at least 0, with a sum of at most 1 (the rest is the base's), not {given}"
            )

    def coefficient(self, count: int) -> float:
        return 1.0 / count

    def prepare(self, vectors: TaskVectors) -> TensorRule:
        factors = len(vectors.names) * shares_of(vectors.names, self.shares)

        def of_tensor(key: str, base: Tensor, stack: Tensor) -> Tensor:
            return stack * per_task(factors, stack)

        return of_tensor
