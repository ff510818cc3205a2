"""Task arithmetic's negation: a task is forgotten by going against its task vector (arXiv 2212.04089, ICLR 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adamerge.errors import PoolError
from adamerge.hints import near
from adamerge.merging.task_vectors import TaskVectors, TensorRule, per_task
from adamerge.rules.rule import Rule


@dataclass(frozen=True)
class Negation(Rule):
    """theta_0 - scale * sum of the task vectors to forget + scale * sum of the others.

    Args:
        forget: the tasks that are forgotten; None: all of the pool, as the paper has it with one.
        scale: coefficient of a static merge, the same for both; the authors choose it on validation pictures.

    Raises:
        PoolError: a task to forget that has no expert in the pool.
    """

    linear = True
    accurate = False  # tasks are to be forgotten

    forget: tuple[str, ...] | None = None
    scale: float = 0.3

    def coefficient(self, count: int) -> float:
        return self.scale

    def prepare(self, vectors: TaskVectors) -> TensorRule:
        forgotten = vectors.names if self.forget is None else tuple(self.forget)
        for task in forgotten:
            if task not in vectors.names:
                raise PoolError(f"forget: there is no expert '{task}'; {near(task, vectors.names)}")
        signs = torch.tensor([-1.0 if name in forgotten else 1.0 for name in vectors.names])

        def of_tensor(key: str, base: Tensor, stack: Tensor) -> Tensor:
            return stack * per_task(signs, stack)

        return of_tensor
