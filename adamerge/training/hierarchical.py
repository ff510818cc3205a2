"""SUPERMERGE's hierarchical mode: groups of experts are merged first, then the merged models."""

from __future__ import annotations

from typing import Any

from adamerge.methods.supermerge import SuperMerge
from adamerge.training.adaptation import Adaptation, summed, with_initial_lr
from adamerge.training.batch import Batch, Given
from adamerge.training.bilevel import only
from adamerge.training.gradients import Losses


class Hierarchical(Adaptation):
    """Two levels (arXiv 2412.10416).

    In the first `group_steps` rounds each group of experts is merged from the base by itself, judged by the group's
    own tasks; in the rest the merged groups are, judged by all tasks, their own coefficients at rest.

    Args:
        group_steps: rounds of the first level, out of the schedule's steps.
    """

    method: SuperMerge

    def __init__(self, *args: Any, group_steps: int, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.method.outer is None:
            raise ValueError(
                "the hierarchical mode needs groups; give method.model.group_size=<experts of a group>"
            )
        self.group_steps = group_steps

    def configure_optimizers(self) -> Any:
        parts = (self.method.merging.values, self.method.outer)
        return [with_initial_lr(self._optimizer([part])) for part in parts if part is not None]

    def training_step(self, stream: dict[str, Given], batch_idx: int) -> None:
        batches = [part for t, g in stream.items() for part in Batch.of(t, g).split(self.schedule.batch_size)]
        optimizers: Any = self.optimizers()
        first = self.step < self.group_steps
        optimizer, part = (
            (optimizers[0], self.method.merging.values) if first else (optimizers[1], self.method.outer)
        )
        assert part is not None
        self.prepare(optimizer)
        with only(self.method, [part]):
            losses = (
                self.of_groups(batches) if first else self.gradients.accumulate(batches, self.manual_backward)
            )
        self.check_finite(losses)
        self.take_step(optimizer)
        self.finish_step(summed(losses))

    def of_groups(self, batches: list[Batch]) -> Losses:
        """Each group's loss on its own tasks, at the encoder that is merged of it alone."""
        losses: Losses = []
        for number, members in enumerate(self.method.groups):
            names = {self.method.pool.names[k] for k in members}
            own = [batch for batch in batches if batch.task in names]
            if not own:
                continue
            self.method.group = number
            try:
                losses += self.gradients.accumulate(own, self.manual_backward)
            finally:
                self.method.group = None
        return losses
