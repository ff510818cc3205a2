"""MetaGPT: merging coefficients in closed form from the task vectors' norms (arXiv 2406.11385, EMNLP 2024)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adamerge.merging.task_vectors import TaskVectors, TensorRule, flattened, per_task
from adamerge.rules.rule import Rule


@dataclass(frozen=True)
class MetaGPT(Rule):
    """theta_0 + sum_t lambda_t tau_t,  lambda_t = ||tau_t||^2 / sum_s ||tau_s||^2, the norms over all tensors.

    The coefficients sum to 1; equal norms give the average. The vectors are T lambda_t tau_t, and their mean is the
    merge, so that coefficients learned on them start from what is customary for task vectors.
    """

    own_start = True

    def coefficient(self, count: int) -> float:
        return 1.0 / count

    def prepare(self, vectors: TaskVectors) -> TensorRule:
        squares = torch.zeros(len(vectors.names), dtype=torch.float64)
        for key in vectors.keys:
            squares += flattened(vectors.stack(key)).square().sum(dim=1, dtype=torch.float64).cpu()
        factors = len(squares) * squares / squares.sum()

        def of_tensor(key: str, base: Tensor, stack: Tensor) -> Tensor:
            return stack * per_task(factors, stack)

        return of_tensor
