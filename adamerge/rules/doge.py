"""DOGE: a change to the task vectors outside their shared subspace, found without data (arXiv 2501.01230, ICML 2025).

The authors' code is not public. This follows the public re-implementation in FusionBench (reference 11 and 3.16).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from adamerge.errors import PoolError
from adamerge.merging import Pool
from adamerge.rules.ties import thresholds

log = logging.getLogger(__name__)

_BLOCKS = "visual.transformer.resblocks."


@dataclass(frozen=True)
class Doge:
    """Change the weight matrices of the blocks by projected gradient descent, then keep each task's largest entries.

    For each matrix, with D_t its task vectors and lambda_t = eta / ||D_t||:

        minimise   sum_j || rowsum( D_j * (sum_t lambda_t (D_t + Delta_t) - D_j) ) ||^2

    over Delta by Adam, its gradient g replaced by (I - P P^T) g, where P spans the tasks' shared left singular vectors.
    The fused attention projection counts as its three matrices.

    Args:
        variant: "ta" has one Delta for all tasks and gives lambda_t (D_t + Delta) * mask_t to be added as they are.
            "am" has a Delta per task and gives (D_t + Delta_t) * mask_t for AdaMerging to find coefficients for.
        eta: of lambda_t.
        steps, lr: Adam's. It moves an entry by up to steps x lr, which is large against a task vector's entries.
        keep: share of each task vector's entries, the largest over all tensors, that the masks keep.
        others: factor of the task vectors of all other tensors; 0 leaves them the base's.
        gap: "row" squares the sum of each row, "matrix" that of the whole matrix (a second re-implementation).

    Raises:
        PoolError: an encoder without transformer blocks.
    """

    variant: Literal["ta", "am"] = "ta"
    eta: float = 0.07
    steps: int = 400
    lr: float = 1.0e-4
    keep: float = 0.3
    others: float = 0.0
    gap: Literal["row", "matrix"] = "row"

    def __post_init__(self) -> None:
        if not 0.0 < self.keep <= 1.0:
            raise ValueError(f"keep is the share of entries to keep, in (0, 1], not {self.keep}")

    def __call__(self, pool: Pool) -> Pool:
        matrices = [key for key in pool.keys if key.startswith(_BLOCKS) and pool.base[key].ndim == 2]
        if not matrices:
            raise PoolError(f"DOGE changes the matrices {_BLOCKS}*; the encoder has none.")
        cut = torch.stack(thresholds(pool, self.keep)).unsqueeze(1)
        vectors = {}
        for key in matrices:
            stack = pool.vectors[key]
            parts = stack.chunk(3, dim=1) if key.endswith("in_proj_weight") else (stack,)
            columns = pool.base[key].shape[1]
            done = [self._changed(part.float().view(len(stack), -1, columns)) for part in parts]
            kept = stack.float().abs() >= cut.to(stack.device)
            vectors[key] = (torch.cat([x.flatten(1) for x in done], dim=1) * kept).to(stack.dtype)
        if self.others:
            vectors = {key: vectors.get(key, self.others * pool.vectors[key]) for key in pool.keys}
        coefficient = 1.0 if self.variant == "ta" else pool.coefficient
        return replace(pool, vectors=vectors, coefficient=coefficient)

    def _changed(self, matrices: Tensor) -> Tensor:
        """The task vectors of one matrix (T, rows, columns) with Delta, times lambda in the variant "ta"."""
        norms = matrices.flatten(1).norm(dim=1)
        scale = torch.where(norms > 0, self.eta / norms, 0.0).view(-1, 1, 1)
        shared = self.variant == "ta"
        basis = shared_basis(matrices, divisor=6 if shared else len(matrices))
        delta = torch.zeros_like(matrices[:1] if shared else matrices)
        optimizer = torch.optim.Adam([delta], lr=self.lr)
        for _ in range(self.steps):
            gradient = gap_gradient(matrices, delta, scale, self.gap)
            delta.grad = gradient - basis @ (basis.t() @ gradient)
            optimizer.step()
        log.info("DOGE: ||Delta|| is %.3g times ||tau||", float(delta.norm() / norms.norm().clamp(min=1e-12)))
        changed = matrices + delta
        return changed * scale if shared else changed


def gap_gradient(matrices: Tensor, delta: Tensor, scale: Tensor, gap: str) -> Tensor:
    """The gradient of the objective in Delta, in closed form.

    Args:
        matrices: (T, rows, columns).
        delta: (1, rows, columns) or (T, rows, columns).
        scale: lambda (T, 1, 1).
    """
    merged = (scale * (matrices + delta)).sum(dim=0)
    sums = (matrices * (merged - matrices)).sum(dim=2, keepdim=True)
    if gap == "matrix":
        sums = sums.sum(dim=1, keepdim=True)
    back = 2.0 * (sums * matrices).sum(dim=0, keepdim=True)
    return back * (scale.sum() if len(delta) == 1 else scale)


def shared_basis(matrices: Tensor, divisor: int) -> Tensor:
    """P (rows, rank / divisor): the leading left singular vectors of the tasks' leading left singular vectors.

    Of each of the T matrices (rows, columns) rank / T vectors are taken.
    """
    tasks, rows, columns = matrices.shape
    rank = min(rows, columns)
    each = torch.linalg.svd(matrices, full_matrices=False).U[:, :, : max(1, rank // tasks)]
    together = each.permute(1, 0, 2).reshape(rows, -1)
    return torch.linalg.svd(together, full_matrices=False).U[:, : max(1, rank // divisor)]
