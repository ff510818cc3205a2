"""TSV-M: each task's leading singular vectors, made orthogonal to the others' (arXiv 2412.00081, CVPR 2025)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adamerge.merging.spectra import polar, triplets
from adamerge.rules.on_matrices import OnMatrices


@dataclass(frozen=True)
class TsvM(OnMatrices):
    """Of each matrix with rank r, with U_t, s_t, V_t the r / T leading triplets of task t:

        [P_1 .. P_T] = polar([U_1 .. U_T])      [Q_1 .. Q_T] = polar([V_1 .. V_T])
        Delta = scale * sum_t P_t diag(s_t) Q_t^T

    The sum's terms are the tasks' vectors here, so that coefficients are learned task by task. A matrix with fewer
    directions than tasks is left out, as in the authors' code (AntoAndGar/task_singular_vectors), a direction that a
    task does not have as well. Of all other tensors it is scale * the mean over the tasks.

    Args:
        scale: 1 without a search; the authors choose it on labels, in steps of 0.1 up to 3.
        fused: whether query, key and value projections are one matrix, "together", as for the authors, or three,
            "apart".
    """

    def of_matrices(self, matrices: Tensor) -> Tensor:
        tasks, rows, columns = matrices.shape
        each = min(rows, columns) // tasks
        if each == 0:
            return torch.zeros_like(matrices)
        lefts, values, rights = zip(*(triplets(matrix, each).present() for matrix in matrices), strict=True)
        left = polar(torch.cat(lefts, dim=1)).unflatten(1, (tasks, each)).transpose(0, 1)
        right = polar(torch.cat(rights)).view(tasks, each, columns)
        return (left * torch.stack(values).unsqueeze(1)) @ right
