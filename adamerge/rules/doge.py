"""DOGE: a change to the task vectors outside their shared subspace, found without data (arXiv 2501.01230, ICML 2025).

The authors' code is not public. This follows the public re-implementation (tanganke/fusion_bench, method/doge_ta).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from adamerge.errors import PoolError
from adamerge.merging.matrices import Fused, by_matrix, is_block_matrix
from adamerge.merging.task_vectors import Some, TaskVectors, TensorRule
from adamerge.rules.rule import Rule
from adamerge.rules.ties import largest, thresholds

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Doge(Rule):
    """Change the weight matrices of the blocks by projected gradient descent, then keep each task's largest entries.

    For each matrix, with D_t its task vectors and lambda_t = eta / ||D_t||:

        minimise   sum_j || rowsum( D_j * (sum_t lambda_t (D_t + Delta_t) - D_j) ) ||^2

    over Delta by Adam, its gradient g replaced by (I - P P^T) g, where P spans the tasks' shared left singular vectors.

    Args:
        variant: "ta" has one Delta for all tasks and gives lambda_t (D_t + Delta) * mask_t to be added as they are.
            "am" has a Delta per task and gives (D_t + Delta_t) * mask_t for AdaMerging to find coefficients for.
        eta: of lambda_t.
        steps, lr: Adam's. It moves an entry by up to steps x lr, which is large against a task vector's entries.
        keep: share of each task vector's entries, the largest of those that are counted, that the masks keep.
        others: factor of the task vectors of all other tensors; 0 leaves them the base's.
        counted: what `keep` is a share of: the blocks' "matrices" (FusionBench), or "all" tensors of the encoder.
        fused: whether query, key and value projections are three matrices, "apart", or one, "together".
        gap: "row" squares the sum of each row, "matrix" that of the whole matrix (a second re-implementation).

    Raises:
        PoolError: an encoder without transformer blocks.
    """

    ranks = True

    variant: Literal["ta", "am"] = "ta"
    eta: float = 0.07
    steps: int = 400
    lr: float = 1.0e-4
    keep: float = 0.3
    others: float = 0.0
    gap: Literal["row", "matrix"] = "row"
    counted: Literal["matrices", "all"] = "matrices"
    fused: Fused = "apart"

    def __post_init__(self) -> None:
        if not 0.0 < self.keep <= 1.0:
            raise ValueError(f"keep is the share of entries to keep, in (0, 1], not {self.keep}")

    def coefficient(self, count: int) -> float | None:
        return 1.0 if self.variant == "ta" else None

    def prepare(self, vectors: TaskVectors) -> TensorRule:
        if not any(is_block_matrix(key, vectors.base(key)) for key in vectors.keys):
            raise PoolError("DOGE changes the weight matrices of transformer blocks; the encoder has none.")
        counted = tuple(
            k for k in vectors.keys if self.counted == "all" or is_block_matrix(k, vectors.base(k))
        )
        cuts = thresholds(vectors if self.counted == "all" else Some(vectors, counted), self.keep)

        def of_tensor(key: str, base: Tensor, stack: Tensor) -> Tensor | None:
            if not is_block_matrix(key, base):
                return self.others * stack if self.others else None
            return by_matrix(key, stack.float(), self._changed, self.fused) * largest(stack, cuts)

        return of_tensor

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
