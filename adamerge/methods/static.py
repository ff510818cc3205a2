"""A static merge: nothing to train, the rule's own coefficient."""

from __future__ import annotations

from torch import Tensor

from adamerge.methods.base import Method


class Static(Method):
    """base + coefficient * sum_k tau_k, or one encoder per task where the rule gives that."""

    def merge(self, task: str | None = None) -> dict[str, Tensor]:
        return self.pool.static(task)
