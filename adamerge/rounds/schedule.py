"""When the trained parameters are updated, and with which images."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from adamerge.rounds.batch import Batch

Update = Literal["round", "task", "batch"]
Feed = Literal["resample", "persistent", "cycle_cached", "once", "fixed"]


def half_cosine(step: int, steps: int) -> float:
    """Half a cosine from 1 to 0: the factor of the learning rate at a step."""
    return 0.5 * (1.0 + math.cos(math.pi * step / steps))


@dataclass(frozen=True)
class Schedule:
    """The grain of the updates, which is all that separates the training loops of most methods.

    Attributes:
        steps: number of rounds. In a round every task gives `batches_per_task` batches of `batch_size` images.
        update: one optimiser step per "round" (AdaMerging: all tasks summed), per "task" (Tinting) or per
            "batch" (Surgery).
        feed: the order of the images, made by `tasks.stream`: "resample" draws each round's images anew,
            "persistent" walks through epochs that are shuffled anew, "cycle_cached" through one shuffled order again
            and again, "once" shows each image once, task after task, "fixed" the same images in every round.
        forward_images: how many images may go through the encoder together; None is one batch. More is faster for
            small encoders and takes more memory; it does not change the result beyond rounding.
        shuffle_tasks: the order of the tasks is drawn anew in each round, from the seed and the round.
        zero_fill: gradients are filled with zeros rather than dropped, as torch before 2.0 did: with Adam, the parts
            of the other tasks then move on by their momentum at each update.
        decay: "cosine" lowers the learning rate to 0 over the steps, "none" keeps it.
        seed: of the orders that are drawn while training.
    """

    steps: int
    batch_size: int = 16
    batches_per_task: int = 1
    update: Update = "round"
    feed: Feed = "resample"
    forward_images: int | None = None
    shuffle_tasks: bool = False
    zero_fill: bool = False
    decay: Literal["none", "cosine"] = "none"
    seed: int = 0

    @property
    def images_per_task(self) -> int:
        """Images of one task in one round."""
        return self.batch_size * self.batches_per_task

    def groups(self, batches: Sequence[Batch], step: int) -> Iterator[list[Batch]]:
        """The round's batches, one per task, cut to size and grouped by the optimiser step that they share."""
        if self.shuffle_tasks:
            batches = [batches[i] for i in self.order(len(batches), step, "tasks")]
        parts = [list(batch.split(self.batch_size)) for batch in batches]
        if self.update == "round":
            yield [part for task in parts for part in task]
        elif self.update == "task":
            yield from parts
        else:
            yield from ([part] for task in parts for part in task)

    def order(self, count: int, step: int, of: str) -> list[int]:
        """A random order of `count` things in a round: a pure function of the seed, the round and what they are."""
        seed = zlib.crc32(f"{self.seed}/{of}/{step}".encode())
        order: list[int] = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
        return order

    def packs(self, group: Sequence[Batch], independent_images: bool = True) -> Iterator[list[Batch]]:
        """Batches that go through the encoder together; each alone where images do not stand for themselves."""
        pack: list[Batch] = []
        limit = (self.forward_images or 0) if independent_images else 0
        for batch in group:
            if pack and sum(map(len, pack)) + len(batch) > limit:
                yield pack
                pack = []
            pack.append(batch)
        if pack:
            yield pack

    def factor(self, step: int) -> float:
        """What the learning rate is multiplied with at a step."""
        if self.decay == "none":
            return 1.0
        return half_cosine(step, self.steps)
