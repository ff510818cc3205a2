"""From batches to gradients: the part that every way of adapting shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adamerge.errors import ConfigError
from adamerge.objectives.objective import Objective, Representation
from adamerge.rounds.batch import Batch
from adamerge.rounds.schedule import Schedule

if TYPE_CHECKING:
    from adamerge.methods.base import Method

Losses = list[tuple[str, Tensor]]  # task and detached loss of each batch that has one


class Gradients:
    """Brings the gradient of an objective, summed over batches, to the method's trained parts.

    Args:
        method: the merged model.
        objective: the loss of a batch.
        schedule: says how many images go through the encoder together.
        teacher: the experts, where the objective compares with them and a batch holds no target.
    """

    def __init__(
        self, method: Method, objective: Objective, schedule: Schedule, teacher: Method | None = None
    ) -> None:
        self.method = method
        self.objective = objective
        self.schedule = schedule
        self.teacher = teacher

    def accumulate(self, batches: Sequence[Batch], backward: Callable[[Tensor], Any]) -> Losses:
        """Merge, run the batches, call `backward` on their losses, contract the gradient.

        A method whose pass depends on the task merges once for each task, any other once for all.
        """
        if all(batch.images is None for batch in batches):
            return [loss for batch in batches for loss in self._from([(batch, batch.encoded)], backward)]
        losses: Losses = []
        for task, own in self._by_pass(batches):
            with self.method.merged_once(task) as merged:
                losses += self.inside(own, backward, task)
                merged.contract_gradient()
        return losses

    def inside(
        self, batches: Sequence[Batch], backward: Callable[[Tensor], Any], task: str | None = None
    ) -> Losses:
        """The same in a round that is open already; the gradient stays in its leaves."""
        losses: Losses = []
        for pack in self.schedule.packs(batches, self.method.independent_images):
            images = torch.cat([batch.images for batch in pack if batch.images is not None])
            parts = _split(self.method.encode(images, task), [len(batch) for batch in pack])
            losses += self._from(list(zip(pack, parts, strict=True)), backward)
        return losses

    def _by_pass(self, batches: Sequence[Batch]) -> list[tuple[str | None, list[Batch]]]:
        if not self.method.by_task:
            return [(None, list(batches))]
        tasks = dict.fromkeys(batch.task for batch in batches)
        return [(task, [batch for batch in batches if batch.task == task]) for task in tasks]

    def _from(self, encoded: list[tuple[Batch, Representation]], backward: Callable[[Tensor], Any]) -> Losses:
        losses = []
        for batch, own in encoded:
            corrected = self.method.correct(own, batch.task)
            loss = self.objective(self.method, corrected, batch.task, self.target(batch))
            penalty = self.method.penalty()
            if loss is not None:
                losses.append((batch.task, loss if penalty is None else loss + penalty))
        if losses:
            total = torch.stack([loss for _, loss in losses]).sum()
            if not total.requires_grad:
                raise ConfigError(
                    f"objective: {type(self.objective).__name__} does not depend on anything that "
                    f"{type(self.method).__name__} trains, so that there is nothing to learn.\n"
                    "  Choose another; `show objectives` lists them."
                )
            backward(total)
        return [(task, loss.detach()) for task, loss in losses]

    @torch.no_grad()
    def target(self, batch: Batch) -> Representation:
        """What the objective compares a batch with: as it was recorded, or by the experts now."""
        if batch.target or self.objective.target != "expert":
            return batch.target
        if self.teacher is None or batch.images is None:
            raise ValueError("this objective compares with the experts: give their pool as the teacher")
        return self.teacher.encode(batch.images, batch.task)


def _split(representation: Representation, sizes: list[int]) -> list[Representation]:
    return list(zip(*(part.split(sizes) for part in representation), strict=True))
