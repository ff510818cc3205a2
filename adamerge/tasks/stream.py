"""Unlabeled streams: the batch of a step is a pure function of (seed, task, step).

That makes resuming exact and the number of loading processes irrelevant. A stream holds images only: labels
cannot leak into the adaptation.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from adamerge.tasks.images import ImageSet

log = logging.getLogger(__name__)


class Stream(Dataset[dict[str, Tensor]]):
    """Batches of unlabeled images: step -> {task: uint8 (n, 3, size, size)}.

    Args:
        image_sets: each task's images.
        per_task: images of one task in one step; a task that has fewer gives all of them.
        steps: length of the stream.
        seed: of the draws; another task in the stream does not change this task's draws.
        feed: "resample" draws without replacement, anew at each step; "persistent" walks through shuffled
            epochs, each image once per epoch; "fixed" shows the images of the first step at every step.

    Raises:
        ValueError: another feed.
    """

    def __init__(
        self,
        image_sets: Mapping[str, ImageSet],
        per_task: int,
        steps: int,
        seed: int,
        feed: Literal["resample", "persistent", "fixed"] = "resample",
    ) -> None:
        if feed not in ("resample", "persistent", "fixed"):
            raise ValueError(f"feed is '{feed}'; it must be 'resample', 'persistent' or 'fixed'")
        self.image_sets = dict(image_sets)
        self.per_task = per_task
        self.steps = steps
        self.seed = seed
        self.feed = feed
        for task, images in self.image_sets.items():
            if len(images) < per_task:
                log.warning("Task %s has only %d images; each step takes all of them.", task, len(images))

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} of a stream of {self.steps}")
        return {task: images[self.indices(task, step)] for task, images in self.image_sets.items()}

    def indices(self, task: str, step: int) -> Tensor:
        """Which of the task's images the step takes, int64 (n,); a pure function of (seed, task, step)."""
        total = len(self.image_sets[task])
        count = min(self.per_task, total)
        if self.feed != "persistent":
            return self._shuffled(task, 0 if self.feed == "fixed" else step, total)[:count]
        first, last = step * count, (step + 1) * count - 1
        epochs = range(first // total, last // total + 1)
        walk = torch.cat([self._shuffled(task, epoch, total) for epoch in epochs])
        return walk[first % total :][:count]

    def _shuffled(self, task: str, number: int, total: int) -> Tensor:
        # By the task's name rather than its number, so that the other tasks of the suite do not matter.
        seed = zlib.crc32(f"{self.seed}/{task}/{self.feed}/{number}".encode())
        return torch.randperm(total, generator=torch.Generator().manual_seed(seed))
