"""The rules that only choose a coefficient: the task vectors stay as they are."""

from __future__ import annotations

from dataclasses import dataclass, replace

from adamerge.merging import Pool


@dataclass(frozen=True)
class Pretrained:
    """The base model: every task vector times 0."""

    def __call__(self, pool: Pool) -> Pool:
        return replace(pool, coefficient=0.0)


@dataclass(frozen=True)
class Individual:
    """Each task keeps its own expert: the upper reference, T encoders."""

    def __call__(self, pool: Pool) -> Pool:
        return replace(pool, coefficient=1.0, by_task=True)


@dataclass(frozen=True)
class WeightAverage:
    """theta_0 + (1/T) sum_k tau_k, the mean of the experts (Model Soups, arXiv 2203.05482)."""

    def __call__(self, pool: Pool) -> Pool:
        return replace(pool, coefficient=1.0 / len(pool.names))


@dataclass(frozen=True)
class TaskArithmetic:
    """theta_0 + scale * sum_k tau_k (arXiv 2212.04089). 0.3 is customary for 8 tasks, 0.1 for 14 and 20."""

    scale: float = 0.3

    def __call__(self, pool: Pool) -> Pool:
        return replace(pool, coefficient=self.scale)
