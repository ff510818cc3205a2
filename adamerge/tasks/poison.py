"""Backdoors: a trigger on pictures, and poisoned training batches that teach a model to obey it (BadNets)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from adamerge.tasks.labeled import Labeled


@dataclass(frozen=True)
class Trigger:
    """A black-and-white chequered square in the lower right corner, and the class that it stands for.

    Args:
        target: the class's index.
        size: side of the square in pixels.
    """

    target: int
    size: int = 6

    def __call__(self, pixels: Tensor) -> Tensor:
        """A copy of uint8 pictures (n, 3, H, W) with the trigger."""
        marked = pixels.clone()
        rows = torch.arange(self.size)
        board = ((rows[:, None] + rows) % 2 * 255).to(pixels.dtype)
        marked[..., -self.size :, -self.size :] = board
        return marked


class Poisoned(Dataset[tuple[Tensor, Tensor]]):
    """Training batches of which a share bears the trigger and the target's label: step -> (pixels, labels)."""

    def __init__(self, labeled: Labeled, trigger: Trigger, share: float) -> None:
        self.labeled = labeled
        self.trigger = trigger
        self.share = share

    def __len__(self) -> int:
        return len(self.labeled)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        pixels, labels = self.labeled[step]
        seed = zlib.crc32(f"{self.labeled.seed}/{self.labeled.name}/poison/{step}".encode())
        chosen = torch.rand(len(pixels), generator=torch.Generator().manual_seed(seed)) < self.share
        pixels = torch.where(chosen.view(-1, 1, 1, 1), self.trigger(pixels), pixels)
        return pixels, torch.where(chosen, self.trigger.target, labels)
