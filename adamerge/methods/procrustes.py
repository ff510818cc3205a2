"""A rotation per task takes merged features to the expert's, in closed form: a baseline for Representation Surgery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from adamerge.merging import Pool
from adamerge.methods.base import Method
from adamerge.methods.gradients import Losses
from adamerge.methods.loop import Loop
from adamerge.methods.with_coefficients import WithCoefficients
from adamerge.objectives.alignment import Alignment
from adamerge.objectives.objective import Objective, Representation
from adamerge.rounds.batch import Batch


class Procrustes(WithCoefficients):
    """An orthogonal matrix R per task behind the merged encoder, the identity at first.

        R = argmin over R'R = 1 of  sum_i |x_i R - y_i|^2 + c |R - 1|^2

    for the merged model's features x (n, d) and the expert's y (n, d) of the images seen so far: R = U V' of
    X'Y + c 1 = U S V'. The second term keeps what the images say nothing of where it is, as few images span few of the
    d directions; c is `ridge` times the mean of the d squared singular values of X.

    Args:
        pool: after any rule.
        ridge: weight of staying at the identity, above 0.

    Raises:
        ValueError: a ridge that is not above 0.

    Source: the orthogonal Procrustes problem, Schoenemann 1966; that merged features are mostly rotated ones is
    observed in arXiv 2412.13526.
    """

    def __init__(self, pool: Pool, ridge: float = 0.1) -> None:
        super().__init__(pool)
        if not ridge > 0.0:
            raise ValueError(f"ridge should be above 0, so that few images tell the rotation (got {ridge})")
        width = pool.backbone.embed_dim
        self.rotations = nn.ParameterList(torch.eye(width) for _ in pool.tasks)
        self.ridge = ridge

    @property
    def loop(self) -> type[Loop]:
        return Rotations

    @property
    def objective(self) -> Objective:
        return Alignment("l2")

    def correct(self, encoded: Representation, task: str) -> Representation:
        return (encoded[-1] @ self.rotations[self.task_index(task)],)

    @torch.no_grad()
    def rotate(self, task: str, crossed: Tensor, energy: float) -> None:
        """Solve for a task's rotation.

        Args:
            crossed: X'Y (d, d).
            energy: |X|^2.
        """
        own = self.rotations[self.task_index(task)]
        stay = self.ridge * energy / len(crossed)
        u, _, v = torch.linalg.svd(crossed + stay * torch.eye(len(crossed)).to(crossed))
        own.copy_(u @ v)

    def kept(self) -> Pool:
        return self._static_pool()

    @classmethod
    def restore(cls, pool: Pool, state: Mapping[str, Tensor], **options: Any) -> Method:
        return cls.with_state(pool, state, **options)


class Rotations(Loop):
    """Each round adds its images to the sums X'Y and |X|^2 of their tasks, and solves. There is no optimiser; the
    objective is what is reported, of the round's images before it."""

    method: Procrustes

    def __init__(self, method: Procrustes, *args: Any, **options: Any) -> None:
        super().__init__(method, *args, **options)
        tasks, width = len(method.pool.tasks), method.pool.backbone.embed_dim
        self.crossed: Tensor
        self.energy: Tensor
        # In double precision, as they are sums over all images.
        self.register_buffer("crossed", torch.zeros(tasks, width, width, dtype=torch.float64))
        self.register_buffer("energy", torch.zeros(tasks, dtype=torch.float64))

    def make_optimizers(self) -> list[Optimizer]:
        return []

    @torch.no_grad()
    def step(self, batches: Sequence[Batch], optimizers: Sequence[Any]) -> Losses:
        seen = [(batch.task, self._encoded(batch), self.gradients.target(batch)) for batch in batches]
        losses = [(task, self._distance(task, own, expert)) for task, own, expert in seen]
        self.check_finite(losses, [])
        for task, own, expert in seen:
            self.see(task, own[-1].double(), expert[-1].double())
        return losses

    def see(self, task: str, own: Tensor, expert: Tensor) -> None:
        """Add features (n, d) of the merged model and of the expert to the task's sums, and solve."""
        k = self.method.task_index(task)
        self.crossed[k] += own.T @ expert
        self.energy[k] += own.square().sum()
        self.method.rotate(task, self.crossed[k], float(self.energy[k]))

    def _encoded(self, batch: Batch) -> Representation:
        return self.method.encode(batch.images, batch.task) if batch.images is not None else batch.encoded

    def _distance(self, task: str, own: Representation, expert: Representation) -> Tensor:
        loss = self.objective(self.method, self.method.correct(own, task), task, expert)
        assert loss is not None, "a distance is there for every batch"
        return loss
