"""A batch: one task's images in one forward pass, with what was recorded of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from adamerge.objectives.objective import Representation

# What a stream gives for a task: images, or any of the fields of a Batch but the task.
Given = Tensor | Mapping[str, Tensor | Representation]


@dataclass(frozen=True)
class Batch:
    """Images of one task.

    Attributes:
        images: (n, 3, H, W), uint8 pixels or normalised floats; None where `encoded` stands for them.
        encoded: what a frozen encoder made of the images, computed before.
        target: what the objective compares with (the expert's representation, or labels); empty where it is to be
            computed now or not needed.
    """

    task: str
    images: Tensor | None = None
    encoded: Representation = ()
    target: Representation = ()

    @classmethod
    def of(cls, task: str, given: Given) -> Batch:
        """From a stream's entry."""
        if isinstance(given, Tensor):
            return cls(task, given)
        return cls(task, **given)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.encoded[-1] if self.images is None else self.images)

    def split(self, size: int) -> Iterator[Batch]:
        """Consecutive parts of at most `size` images."""
        for first in range(0, len(self), size):
            part = slice(first, first + size)
            yield Batch(
                self.task,
                None if self.images is None else self.images[part],
                tuple(x[part] for x in self.encoded),
                tuple(x[part] for x in self.target),
            )
