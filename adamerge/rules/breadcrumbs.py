"""Model Breadcrumbs: the largest and the smallest entries of each row are dropped (arXiv 2312.06795, ECCV 2024).

This follows the authors' code (rezazzr/breadcrumbs), which masks row by row where the paper says layer by layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from adamerge.rules.rule import Rule


@dataclass(frozen=True)
class Breadcrumbs(Rule):
    """In each row of L entries the int(remove L) of largest magnitude are dropped, of the rest the int(keep L) largest
    are kept, and theta = theta_0 + scale * sum_t masked tau_t.

    A row runs along the last dimension; a tensor of one dimension is one row, a single number stays as it is. Of equal
    magnitudes the earlier entry counts as larger.

    Args:
        keep: share of a row that is kept (beta). The authors search 0.05 to 0.2 on validation pictures, from 0.15.
        remove: share of a row that is dropped as outliers (gamma); 0.001 to 0.01, from 0.006.
        scale: coefficient of a static merge (alpha); 0.01 to 1, from 0.2.
        scope: what shares are of: each "row", as in the authors' code, or the whole "tensor", as in the paper.
    """

    ranks = True
    own_start = True

    keep: float = 0.15
    remove: float = 0.006
    scale: float = 0.2
    scope: Literal["row", "tensor"] = "row"

    def __post_init__(self) -> None:
        if not 0.0 < self.keep <= 1.0:
            raise ValueError(f"keep is the share of entries to keep, in (0, 1], not {self.keep}")
        if not 0.0 <= self.remove < 1.0:
            raise ValueError(
                f"remove is the share of entries to drop as outliers, in [0, 1), not {self.remove}"
            )

    def coefficient(self, count: int) -> float:
        return self.scale

    def of_tensor(self, key: str, base: Tensor, stack: Tensor) -> Tensor:
        if base.ndim == 0:
            return stack
        return torch.stack([self._crumbs(vector) for vector in stack])

    def _crumbs(self, vector: Tensor) -> Tensor:
        rows = vector if self.scope == "row" else vector.flatten()
        length = rows.shape[-1]
        first = int(length * self.remove)
        order = rows.abs().argsort(dim=-1, descending=True, stable=True)
        between = order[..., first : first + int(length * self.keep)]
        kept = torch.zeros_like(rows, dtype=torch.bool).scatter(-1, between, True)
        return torch.where(kept, rows, 0.0).view(vector.shape)
