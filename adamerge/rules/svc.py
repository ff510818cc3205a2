"""SVC: the singular values of a merge are calibrated by how each task answers (arXiv 2602.05536; lyymuwu/SVC)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adamerge.merging.matrices import Fused, by_matrix, is_matrix
from adamerge.merging.task_vectors import TaskVectors, TensorRule
from adamerge.rules.post import PostRule, TensorPost


@dataclass(frozen=True)
class Svc(PostRule):
    """Directions that many tasks share are counted many times in a merge; each is divided by how much too strong it is.

    For the merged matrix D = U diag(s) V^T, its task vectors D_i and each left singular vector u_r:

        s_ir  = < u_r^T D , u_r^T D_i > / || u_r^T D_i ||^2
        eta_r = mean_i max(alpha, s_ir),        s_r <- s_r / eta_r

    It is linear in what is merged, D <- D + U (1 / eta - 1) U^T D, and so done to each of the rule's vectors. Matrices
    are the tensors of two dimensions but the embeddings of positions; all others stay as the rule has them.

    Args:
        alpha: the least answer that is counted; None is 1 / T, as the authors have it (1 behind TSV-M).
        fused: whether query, key and value projections are one matrix, "together", as for the authors, or three,
            "apart".
    """

    alpha: float | None = None
    fused: Fused = "together"

    def __post_init__(self) -> None:
        if self.alpha is not None and not self.alpha > 0.0:
            raise ValueError(f"alpha is the least answer that is counted, above 0, not {self.alpha}")

    def prepare(self, vectors: TaskVectors, rule: TensorRule, coefficient: float) -> TensorPost:
        alpha = 1.0 / len(vectors.names) if self.alpha is None else self.alpha

        def of_tensor(key: str, stack: Tensor, found: Tensor) -> Tensor:
            if not is_matrix(vectors.base(key)) or "embedding" in key:
                return found
            tasks = len(stack)

            def change(both: Tensor) -> Tensor:
                return _calibrated(both[:tasks], both[tasks:], coefficient, alpha)

            return by_matrix(key, torch.cat([stack, found]), change, self.fused)

        return of_tensor


def _calibrated(tasks: Tensor, found: Tensor, coefficient: float, alpha: float) -> Tensor:
    """Args:
    tasks: (T, rows, columns) task vectors.
    found: (T or 1, rows, columns), which are merged with `coefficient`.
    """
    merged = coefficient * found.sum(dim=0)
    if not torch.any(merged != 0):
        return found
    left = torch.linalg.svd(merged, full_matrices=False).U
    answers = left.t() @ tasks  # (T, r, columns)
    strength = ((left.t() @ merged) * answers).sum(dim=2) / answers.square().sum(dim=2).clamp(min=1e-12)
    eta = strength.clamp(min=alpha).mean(dim=0)
    return found + left @ ((1.0 / eta - 1.0).unsqueeze(1) * (left.t() @ found))
