"""Adapting a run's method: its data, what can be recorded of them, and the training."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from rich.console import Console
from torch.utils.data import Dataset

from adamerge.merging import Pool
from adamerge.methods.base import Method
from adamerge.methods.static import experts
from adamerge.rounds.schedule import Schedule
from adamerge.runs.backbones import fit_for
from adamerge.runs.folder import train_in
from adamerge.runs.guarding import guard_of, hold_back
from adamerge.runs.images import Data, corruption_of
from adamerge.runs.protocol import adapts_on, objective_of, order_of, refuse_test_images, unlabeled
from adamerge.runs.recorded import recorded_stream
from adamerge.runs.run import Run
from adamerge.runs.watching import watch_of
from adamerge.settings import instantiate
from adamerge.settings.components import find_target
from adamerge.tasks.images import ImageSet
from adamerge.tasks.labeled import LabeledStream, labeled_subset
from adamerge.tasks.orders import Order, plans
from adamerge.tasks.overlap import refuse_overlap
from adamerge.tasks.stream import Stream
from adamerge.tracking.mirror import Mirror
from adamerge.training.adaptation import Adaptation


def adapt(
    run: Run, method: Method, pool: Pool, data: Data, console: Console, mirrors: Sequence[Mirror] = ()
) -> float:
    """Train the method's parts, if it has any. Returns the seconds that recording frozen things took.

    Args:
        method: what is trained.
        pool: the experts, before any rule: the teachers.
        data: the test split, whose images the stream shows unless the run adapts on others.
        mirrors: where the journal is shown as well.
    """
    settings = run.settings
    objective = objective_of(settings)
    if objective is None:
        return 0.0
    given = settings.method.schedule
    assert given is not None, "what has an objective has a schedule"
    # A feed that shows each image once has as many rounds as that takes.
    planned = Schedule(**{**given.model_dump(), "steps": given.steps or 0, "seed": settings.seed})
    if note := method.notes(planned.batch_size):
        console.print(note, highlight=False)
    started = time.perf_counter()
    labeled = _labeled(run, data)
    learns_from_labels = objective.target == "labels"
    drawn: dict[str, Any] = {
        "per_task": planned.images_per_task,
        "steps": given.steps,
        "seed": settings.seed,
        "feed": planned.feed,
    }
    training = settings.method.training
    kind: Any = find_target(training["_target_"]) if training else method.loop
    of_experts = objective.target == "expert" and not kind.compares_itself
    held: dict[str, ImageSet] = {}
    if learns_from_labels:
        stream = Stream({task: few["images"] for task, few in labeled.items()}, **drawn)
    else:
        stream, held = _stream(run, data, drawn)
    schedule = replace(planned, steps=len(stream))
    dataset: Dataset[Any] = stream
    if learns_from_labels:
        dataset = LabeledStream(stream, {task: few["labels"] for task, few in labeled.items()})
    elif settings.record:
        dataset = recorded_stream(run, method, pool, of_experts, stream)
    guard = guard_of(run, pool, held)
    recorded = time.perf_counter() - started
    module = Adaptation(
        method,
        objective,
        instantiate(settings.method.optimizer) if settings.method.optimizer else None,
        schedule,
        stream.indices,
        experts(pool, method.block_means) if of_experts and not settings.record else None,
        labeled={task: _all(few) for task, few in labeled.items()},
        loop=partial(instantiate, training) if training else None,
    )
    watch = watch_of(run, method, pool, data, schedule.steps)
    train_in(run.folder, settings, module, dataset, schedule.steps, mirrors, watch, guard)
    return recorded


def _stream(run: Run, data: Data, drawn: Mapping[str, Any]) -> tuple[Stream, dict[str, ImageSet]]:
    """The unlabeled images that the run adapts on, in the order in which they come; and those a guard holds back."""
    order, on = order_of(run.settings.stream), adapts_on(run.settings)
    assert on is not None
    given = unlabeled(run, data, on, run.settings.suite.adapt_images)
    held: dict[str, ImageSet] = {}
    if (guard := run.settings.guarded) is not None:
        given, held = hold_back(given, guard, run.settings.seed)
    sizes = {task: len(images) for task, images in given.images.items()}
    planned = None if order == Order() else plans(order, sizes, given.labels, **drawn)
    stream = Stream(given.images, **drawn, plans=planned)
    refuse_test_images(run, stream, held, data, on)
    return stream, held


def _labeled(run: Run, data: Data) -> dict[str, dict[str, Any]]:
    """The few labeled training images per task of a method that asks for them; nothing for any other."""
    count = run.settings.method.labels
    if count is None:
        return {}
    fit = fit_for(run.settings.backbone)
    chosen = {task.name: labeled_subset(task, count, run.settings.seed, fit, run.name) for task in data.tasks}
    if not run.settings.suite.allow_overlap and corruption_of(run.settings.suite) is None:
        for task, (images, _) in chosen.items():
            refuse_overlap(task, images, data.images[task])
    return {task: {"images": images, "labels": labels} for task, (images, labels) in chosen.items()}


def _all(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"images": given["images"], "target": (given["labels"],)}
