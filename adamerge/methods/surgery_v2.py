"""SurgeryV2: adapters after every residual block and at the end (deep representation surgery)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from adamerge.merging import Pool
from adamerge.methods.adapter import Adapter
from adamerge.methods.base import Method
from adamerge.methods.with_coefficients import MakeCoefficients, WithCoefficients
from adamerge.models.blocks import blocks
from adamerge.objectives.alignment import Alignment
from adamerge.objectives.objective import Objective, Representation


class SurgeryV2(WithCoefficients):
    """Per task an adapter on the tokens behind each residual block, and one on the projected feature.

    Later blocks see the corrected tokens, so the pass depends on the task; the merged encoder below is shared.

    Args:
        pool: after any rule.
        rank: width of the adapters' bottleneck: 16 for ViT-B, 4 for ViT-L in the authors' code.
        coefficients: merging coefficients that are learned jointly with the adapters; None leaves the rule's at rest,
            as the paper does.
    """

    block_means = True

    def __init__(self, pool: Pool, rank: int = 16, coefficients: MakeCoefficients | None = None) -> None:
        super().__init__(pool, coefficients)
        backbone, depth = pool.backbone, len(blocks(pool.encoder))
        self.inner = nn.ModuleList(
            nn.ModuleList(Adapter(backbone.width, rank) for _ in range(depth)) for _ in pool.tasks
        )
        self.final = nn.ModuleList(Adapter(backbone.embed_dim, rank) for _ in pool.tasks)

    @property
    def by_task(self) -> bool:
        return True

    @property
    def frozen_encoder(self) -> bool:
        return False

    @property
    def objective(self) -> Objective:
        return Alignment()

    def after_block(self, index: int, tokens: Tensor, task: str | None) -> Tensor:
        if task in self.pool.unseen:
            return tokens
        adapters: nn.ModuleList = self.inner[self.task_index(task)]  # type: ignore[assignment]
        corrected: Tensor = adapters[index](tokens)
        return corrected

    def correct(self, encoded: Representation, task: str) -> Representation:
        return (*encoded[:-1], self.final[self.task_index(task)](encoded[-1]))

    def kept(self) -> Pool:
        return self._static_pool()

    @classmethod
    def restore(cls, pool: Pool, state: Mapping[str, Tensor], **options: Any) -> Method:
        return cls.restore_part(pool, state, **options)
