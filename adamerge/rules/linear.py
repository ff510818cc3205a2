"""The rules that only choose a coefficient: the task vectors stay as they are."""

from __future__ import annotations

from dataclasses import dataclass

from adamerge.rules.rule import Rule


@dataclass(frozen=True)
class Pretrained(Rule):
    """The base model: every task vector times 0."""

    linear = True

    def coefficient(self, count: int) -> float:
        return 0.0


@dataclass(frozen=True)
class Individual(Rule):
    """Each task keeps its own expert: the upper reference, T encoders."""

    gives = "experts"
    linear = True


@dataclass(frozen=True)
class WeightAverage(Rule):
    """theta_0 + (1/T) sum_k tau_k, the mean of the experts (Model Soups, arXiv 2203.05482)."""

    linear = True

    def coefficient(self, count: int) -> float:
        return 1.0 / count


@dataclass(frozen=True)
class TaskArithmetic(Rule):
    """theta_0 + scale * sum_k tau_k (arXiv 2212.04089). 0.3 is customary for 8 tasks, 0.1 for 14 and 20."""

    linear = True

    scale: float = 0.3

    def coefficient(self, count: int) -> float:
        return self.scale
