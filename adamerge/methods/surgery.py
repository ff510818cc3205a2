"""Representation Surgery: a small adapter per task takes the merged feature to the expert's (ICML 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import normalize

from adamerge.merging import Pool
from adamerge.methods.adapter import Adapter
from adamerge.methods.base import Method
from adamerge.methods.with_coefficients import MakeCoefficients, WithCoefficients
from adamerge.objectives.alignment import Alignment
from adamerge.objectives.objective import Objective, Representation


class Surgery(WithCoefficients):
    """An adapter per task behind the merged encoder (arXiv 2402.02705, eq. 3).

    Args:
        pool: after any rule.
        rank: width of the adapters' bottleneck.
        normalize: the adapters work on features of length 1 (FusionBench) rather than as they are (the paper).
        coefficients: merging coefficients that are learned jointly with the adapters; None leaves the rule's at rest,
            as the paper does.
    """

    def __init__(
        self,
        pool: Pool,
        rank: int = 16,
        normalize: bool = False,
        coefficients: MakeCoefficients | None = None,
    ) -> None:
        super().__init__(pool, coefficients)
        self.adapters = nn.ModuleList(Adapter(pool.backbone.embed_dim, rank) for _ in pool.tasks)
        self.normalize = normalize

    @property
    def objective(self) -> Objective:
        return Alignment(normalize=self.normalize)

    def correct(self, encoded: Representation, task: str) -> Representation:
        feature = normalize(encoded[-1], dim=-1) if self.normalize else encoded[-1]
        return (self.adapters[self.task_index(task)](feature),)

    def kept(self) -> Pool:
        return self._static_pool()

    @classmethod
    def restore(cls, pool: Pool, state: Mapping[str, Tensor], **options: Any) -> Method:
        return cls.restore_part(pool, state, **options)
