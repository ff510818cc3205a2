"""The joint label space: an image may be of every task, and all heads together are one classifier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Joint:
    """No task is ruled out; the largest logit of all heads decides, as in KnOTS' and Core Space's joint evaluations.

    It needs nothing but the model. Heads must share a scale, as CLIP's zero-shot heads do: one that was trained by
    itself (Tinting) may be surer than the others for no reason that concerns the image.
    """

    tasks: tuple[str, ...]

    def __call__(self, images: Tensor) -> Tensor:
        return torch.ones(len(images), len(self.tasks), dtype=torch.bool, device=images.device)

    def map(self, fn: Callable[[Tensor], Tensor]) -> Joint:
        return self
