"""Test-time training of the whole merged encoder: the negative control of the field."""

from __future__ import annotations

from torch import Tensor, nn

from adamerge.errors import PoolError
from adamerge.merging import Pool
from adamerge.methods.base import Method


class FullFinetuning(Method):
    """Every tensor of the merged encoder is trained, from the static merge on.

    With entropy as the objective it collapses sooner or later (subspace_fusion reports it as unstable), which is
    why the other methods train so few numbers.

    Raises:
        PoolError: the rule keeps one encoder per task.
    """

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool)
        if pool.by_task:
            raise PoolError(
                "Full fine-tuning starts from one merged encoder, but this rule keeps one per task."
            )
        merged = pool.static()
        self.theta = nn.ParameterList(nn.Parameter(merged[key].clone()) for key in pool.keys)

    def merge(self, task: str | None = None) -> dict[str, Tensor]:
        return dict(zip(self.pool.keys, self.theta, strict=True))
