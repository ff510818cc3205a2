"""`adamerge.fit`: adapt a method on explicit batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch.utils.data import Dataset

from adamerge.merging import Pool
from adamerge.methods.base import Method
from adamerge.methods.loop import Labeled, Loop, OptimizerFactory
from adamerge.methods.static import experts
from adamerge.objectives.objective import Objective
from adamerge.rounds.batch import Given
from adamerge.rounds.schedule import Schedule
from adamerge.training.adaptation import Adaptation
from adamerge.training.guard import Guard
from adamerge.training.run_steps import run_steps


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
    optimizer: OptimizerFactory | None,
    schedule: Schedule | Mapping[str, Any],
    objective: Objective | None = None,
    teacher: Pool | None = None,
    labeled: Labeled | None = None,
    loop: Callable[..., Loop] | None = None,
    guard: Guard | None = None,
    trainer: Mapping[str, Any] | None = None,
) -> Method:
    """Adapt `method` in place, by its own loop, and return it.

    Args:
        stream: one {task: images (n, 3, H, W)} per step; n is split into batches of schedule.batch_size. With labels
            or recordings a task's entry is a mapping, {"images": ..., "target": (labels,)}.
        optimizer: called with the trainable parameters, e.g. functools.partial(torch.optim.Adam, lr=1e-3); None for a
            loop that needs none (FW-Merging's hard steps).
        schedule: a Schedule or its fields.
        objective: the loss; the method's own by default, entropy for most.
        teacher: the pool of the experts, before any rule; needed by an objective that compares with them.
        labeled: {task: {"images": ..., "target": (labels,)}} for a loop that looks at a few labels beside the stream.
        loop: the method's own with other options, functools.partial(Bilevel, meta_steps=2000), or another loop.
        guard: keeps the best state, judged on images that are not in the stream: adamerge.Guard(images, teacher).
        trainer: options of Lightning's Trainer, e.g. {"accelerator": "cpu"}.
    """
    plan = schedule if isinstance(schedule, Schedule) else Schedule(**schedule)
    options = {"enable_progress_bar": False, "devices": 1, **(trainer or {})}
    module = Adaptation(
        method,
        objective or method.objective,
        optimizer,
        plan,
        teacher=None if teacher is None else experts(teacher, method.block_means),
        labeled=labeled,
        loop=loop,
    )
    run_steps(module, _Batches(stream), plan.steps, trainer=options, guard=guard)
    return method
