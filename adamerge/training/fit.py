"""`adamerge.fit`: adapt a method on explicit batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch.utils.data import Dataset

from adamerge.merging import Pool
from adamerge.methods.base import Method
from adamerge.methods.static import experts
from adamerge.objectives.entropy import Entropy
from adamerge.objectives.objective import Objective
from adamerge.training.adaptation import Adaptation, OptimizerFactory
from adamerge.training.batch import Given
from adamerge.training.loop import run_steps
from adamerge.training.schedule import Schedule


class _Batches(Dataset[dict[str, Given]]):
    """The user's batches by step. An iterable is read in order, one item per step."""

    def __init__(self, stream: Iterable[Mapping[str, Given]]) -> None:
        self._items = iter(stream)

    def __getitem__(self, step: int) -> dict[str, Given]:
        try:
            return dict(next(self._items))
        except StopIteration:
            raise ValueError(
                f"the stream ended before step {step}; give as many items as schedule.steps"
            ) from None


def fit(
    method: Method,
    stream: Iterable[Mapping[str, Given]],
    *,
    optimizer: OptimizerFactory,
    schedule: Schedule | Mapping[str, Any],
    objective: Objective | None = None,
    teacher: Pool | None = None,
    trainer: Mapping[str, Any] | None = None,
) -> Method:
    """Adapt `method` in place and return it.

    Args:
        stream: one {task: images (n, 3, H, W)} per step; n is split into batches of schedule.batch_size. With labels
            or recordings a task's entry is a mapping, {"images": ..., "target": (labels,)}.
        optimizer: called with the trainable parameters, e.g. functools.partial(torch.optim.Adam, lr=1e-3).
        schedule: a Schedule or its fields.
        objective: the loss; entropy by default.
        teacher: the pool of the experts, before any rule; needed by an objective that compares with them.
        trainer: options of Lightning's Trainer, e.g. {"accelerator": "cpu"}.
    """
    plan = schedule if isinstance(schedule, Schedule) else Schedule(**schedule)
    options = {"enable_progress_bar": False, "devices": 1, **(trainer or {})}
    module = Adaptation(
        method,
        objective or Entropy(),
        optimizer,
        plan,
        teacher=None if teacher is None else experts(teacher, method.deep),
    )
    run_steps(module, _Batches(stream), plan.steps, trainer=options)
    return method
