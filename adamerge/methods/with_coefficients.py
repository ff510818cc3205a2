"""Methods made of parts: merging coefficients, at rest or learned, and at most one task-specific part on top."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from adamerge.merging import LearnedCoefficients, Pool, layer_table, merge_tensors
from adamerge.merging.layers import Layer
from adamerge.methods.base import Method

# Makes the coefficients that are learned for a pool: functools.partial(adamerge.merging.learned, granularity="task").
MakeCoefficients = Callable[[Pool], LearnedCoefficients]


class WithCoefficients(Method):
    """base[l] + sum_k lambda[l, k] tau[k, l], with the rule's own coefficients at rest or with learned ones.

    A method with a task-specific part (an adapter, a tinted layer, masks) stands on this, so that the part and the
    coefficients are learned alone or together: one round brings both their gradients, that of the coefficients by the
    contraction of the functional merge.

    Args:
        pool: after any rule.
        coefficients: makes those that are learned; None leaves the rule's own at rest.

    Raises:
        PoolError: coefficients to learn for a rule that keeps one encoder per task.
    """

    def __init__(self, pool: Pool, coefficients: MakeCoefficients | None = None) -> None:
        super().__init__(pool)
        self.merging = None if coefficients is None else coefficients(pool)
        self.layers: tuple[Layer, ...] = (
            () if self.merging is None else layer_table(pool.keys, self.merging.layout)
        )
        self._at_rest: tuple[str | None, dict[str, Tensor]] | None = None

    @property
    def frozen_encoder(self) -> bool:
        return self.merging is None

    def table(self) -> Tensor:
        """The merging coefficients (rows, T) that are learned, as they are merged with."""
        assert self.merging is not None, "the rule's own coefficients are at rest"
        table: Tensor = self.merging()
        return table

    def merge(self, task: str | None = None) -> dict[str, Tensor]:
        return self.merge_by_coefficients(task)

    def merge_by_coefficients(self, task: str | None = None) -> dict[str, Tensor]:
        """What the task-specific part stands on. With coefficients at rest it is merged once."""
        if self.merging is not None:
            return self.merge_onto(self.pool.base)
        task = task if self.pool.by_task else None
        # The last one is kept, never one per task: T experts would need T times the memory of the model.
        if self._at_rest is None or self._at_rest[0] != task:
            self._at_rest = (task, self.pool.static(task))
        return self._at_rest[1]

    def merge_onto(self, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """base[l] + sum_k lambda[l, k] tau[k, l]."""
        return merge_tensors(self.table(), base, self.pool.vectors, self.layers)

    def coefficients(self) -> dict[str, dict[str, float]]:
        return {} if self.merging is None else self.merging.named(self.table())

    def parameter_groups(self) -> list[dict[str, Any]]:
        if self.merging is None or self.merging.lr is None:
            return super().parameter_groups()
        values = self.merging.values
        others = [p for p in self.parameters() if p.requires_grad and p is not values]
        return [{"params": [values], "lr": self.merging.lr}, *([{"params": others}] if others else [])]

    def kept(self) -> Pool | None:
        return self._static_pool() if self._plain else None

    def _static_pool(self) -> Pool:
        """The encoder that the part stands on, or that of each task where the rule gives one for each."""
        return replace(self.pool, finished=True) if self.pool.by_task else self._merged_pool()

    @classmethod
    def restore_part(cls, pool: Pool, state: Mapping[str, Tensor], **options: Any) -> Method:
        """The finished model: its part, over the encoder that the coefficients gave."""
        part = {key: value for key, value in state.items() if not key.startswith("merging.")}
        return cls.with_state(pool, part, **{**options, "coefficients": None})

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self._at_rest = None
        return super()._apply(fn, recurse)
