"""What a rule asks of images that go block by block through a merge and, beside it, through each task's expert."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Weighted means over tokens of what enters a layer, s in the merge and e in the expert of the images' task.

    Attributes:
        second: (inputs, inputs) of s s^T.
        cross: (inputs, inputs) of s e^T.
        mean, expert: (inputs,) of s and of e.
    """

    second: Tensor
    cross: Tensor
    mean: Tensor
    expert: Tensor


@dataclass(frozen=True)
class BlockMoments:
    """What one task's images leave in one block.

    Attributes:
        linears: by the key of a linear's weight; one for all its rows, or one for each part of the rows (query, key and
            value of a fused weight) where the parts weigh tokens differently.
        norms: by the key of a norm's gain, (channels,) means over tokens of z^2 and of z, the merge's tokens as they
            are before gain and bias.
    """

    linears: Mapping[str, tuple[Moments, ...]]
    norms: Mapping[str, tuple[Tensor, Tensor]]


class Walk(Protocol):
    """Images of every expert's task on their way through the blocks of a merge and, beside it, of the expert.

    In front of a block, the merge's tokens come out of the blocks before it as `go_on` was given them, the experts' out
    of their own.
    """

    @property
    def blocks(self) -> int: ...

    def moments(self, index: int, expert: str) -> BlockMoments:
        """Of the block `index` as the merge has it, on the images of one expert's task; once for each, as the expert's
        own tokens go on behind it."""
        ...

    def go_on(self, index: int, block: Mapping[str, Tensor]) -> None:
        """The merge's tokens of all tasks go through the block with these tensors, by key, in place of its own."""
        ...
