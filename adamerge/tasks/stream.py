"""Unlabeled streams: the batch of a step is a pure function of (seed, task, step).

That makes resuming exact and the number of loading processes irrelevant. A stream holds images only: labels
cannot leak into the adaptation.
"""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Mapping
from typing import get_args

import torch
from torch import Tensor
from torch.utils.data import Dataset

from adamerge.errors import ConfigError
from adamerge.rounds.schedule import Feed
from adamerge.tasks.images import ImageSet
from adamerge.tasks.orders import Plan

log = logging.getLogger(__name__)


class Stream(Dataset[dict[str, Tensor]]):
    """Batches of unlabeled images: step -> {task: uint8 (n, 3, size, size)}.

    Args:
        image_sets: each task's images.
        per_task: images of one task in one step; a task that has fewer gives all of them.
        steps: length of the stream; None, for "once", is as long as there are images.
        seed: of the draws; another task in the stream does not change this task's draws.
        feed: the order in which a task's images come:
            "resample" draws without replacement, anew at each step;
            "persistent" walks through epochs, each shuffled anew;
            "cycle_cached" walks through one shuffled order again and again, as itertools.cycle over a loader does;
            "once" shows each image of each task exactly once, one task after the other;
            "fixed" shows the images of the first step at every step.
        plans: which images each step takes, by task, where the order is not independent of the classes. A step
            leaves a task out that has no image in it.

    Raises:
        ValueError: another feed, or no number of steps.
        ConfigError: more steps than "once" has images for.
    """

    def __init__(
        self,
        image_sets: Mapping[str, ImageSet],
        per_task: int,
        steps: int | None,
        seed: int,
        feed: Feed = "resample",
        plans: Mapping[str, Plan] | None = None,
    ) -> None:
        if feed not in get_args(Feed):
            raise ValueError(f"feed is '{feed}'; it must be one of {', '.join(get_args(Feed))}")
        self.image_sets = dict(image_sets)
        self.per_task = per_task
        self.seed = seed
        self.feed = feed
        self.steps = self._once_steps(steps) if feed == "once" else _given(steps, feed)
        self._kept: dict[str, tuple[int, Tensor]] = {}  # the last order of each task
        self.plans = plans
        for task, images in self.image_sets.items():
            if len(images) < per_task and feed != "once":
                log.warning("Task %s has only %d images; each step takes all of them.", task, len(images))

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} of a stream of {self.steps}")
        return {task: self.image_sets[task][self.indices(task, step)] for task in self.shown(step)}

    def shown(self, step: int) -> list[str]:
        """The tasks that give images in a step: all of them, or with "once" the one whose turn it is."""
        if self.plans is not None:
            return [task for task in self.image_sets if len(self.plans[task][step])]
        if self.feed != "once":
            return list(self.image_sets)
        return [task for task in self.image_sets if 0 <= step - self._first_step(task) < self._rounds(task)]

    def indices(self, task: str, step: int) -> Tensor:
        """Which of the task's images the step takes, int64 (n,); a pure function of (seed, task, step)."""
        if self.plans is not None:
            return self.plans[task][step]
        total = len(self.image_sets[task])
        count = min(self.per_task, total)
        if self.feed == "resample":
            return self._shuffled(task, step, total)[:count]
        if self.feed == "fixed":
            return self._shuffled(task, 0, total)[:count]
        if self.feed == "once":
            first = (step - self._first_step(task)) * self.per_task
            return self._shuffled(task, 0, total)[first : first + self.per_task] if first >= 0 else _NONE
        first, last = step * count, (step + 1) * count - 1
        epochs = range(first // total, last // total + 1)
        anew = self.feed == "persistent"
        walk = torch.cat([self._shuffled(task, epoch if anew else 0, total) for epoch in epochs])
        return walk[first % total :][:count]

    def _shuffled(self, task: str, number: int, total: int) -> Tensor:
        number_of, order = self._kept.get(task, (-1, _NONE))
        if number_of != number:
            # By the task's name rather than its number, so that the other tasks of the suite do not matter.
            seed = zlib.crc32(f"{self.seed}/{task}/{self.feed}/{number}".encode())
            order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
            self._kept[task] = (number, order)
        return order

    def _rounds(self, task: str) -> int:
        """Steps that "once" takes for a task's images."""
        return math.ceil(len(self.image_sets[task]) / self.per_task)

    def _first_step(self, task: str) -> int:
        """The step at which "once" comes to a task."""
        names = list(self.image_sets)
        return sum(self._rounds(name) for name in names[: names.index(task)])

    def _once_steps(self, asked: int | None) -> int:
        longest = sum(self._rounds(task) for task in self.image_sets)
        if asked is None or asked <= longest:
            return longest if asked is None else asked
        raise ConfigError(
            f"method.schedule.steps={asked}, but feed=once has images for {longest} steps of {self.per_task} only.\n"
            "  Leave steps at null: it then shows each image once."
        )


_NONE = torch.empty(0, dtype=torch.long)


def _given(steps: int | None, feed: str) -> int:
    if steps is None:
        raise ValueError(f"feed '{feed}' has no end of its own; give a number of steps")
    return steps
