"""When the trained parameters are updated, and with which images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Update = Literal["round", "task", "batch"]
Batch = tuple[str, Tensor]  # a task and its images


@dataclass(frozen=True)
class Schedule:
    """The grain of the updates, which is all that separates the training loops of the methods.

    Attributes:
        steps: number of rounds. In a round every task gives `batches_per_task` batches of `batch_size` images.
        update: one optimiser step per "round" (AdaMerging: all tasks summed), per "task" (Tinting) or per
            "batch" (Surgery).
        feed: "resample" draws each round's images anew, "persistent" walks through shuffled epochs.
        forward_images: how many images may go through the encoder together; None is one batch. More is faster for
            small encoders and takes more memory; it does not change the result beyond rounding.
    """

    steps: int
    batch_size: int = 16
    batches_per_task: int = 1
    update: Update = "round"
    feed: Literal["resample", "persistent"] = "resample"
    forward_images: int | None = None

    @property
    def images_per_task(self) -> int:
        """Images of one task in one round."""
        return self.batch_size * self.batches_per_task

    def groups(self, images: Mapping[str, Tensor]) -> Iterator[list[Batch]]:
        """The round's batches, grouped by the optimiser step that they share."""
        batches = [(task, part) for task, pixels in images.items() for part in pixels.split(self.batch_size)]
        if self.update == "round":
            yield batches
        elif self.update == "task":
            for task in images:
                yield [batch for batch in batches if batch[0] == task]
        else:
            yield from ([batch] for batch in batches)

    def packs(self, group: list[Batch], by_task: bool) -> Iterator[list[Batch]]:
        """Batches of one optimiser step that go through the encoder together (never two tasks' encoders)."""
        pack: list[Batch] = []
        for task, images in group:
            size = sum(len(other) for _, other in pack) + len(images)
            if pack and (size > (self.forward_images or 0) or (by_task and pack[0][0] != task)):
                yield pack
                pack = []
            pack.append((task, images))
        if pack:
            yield pack
