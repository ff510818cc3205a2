"""An iteration of Surgery (each task's batches of images, an update each): looked up, recorded, or computed anew."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from adamerge.bench.harness import Step
from adamerge.bench.random_pool import random_images, random_pool
from adamerge.methods.static import experts
from adamerge.methods.surgery import Surgery
from adamerge.objectives.alignment import alignment

VARIANTS = (
    "adamerge, an iteration from recordings",
    "adamerge, recording the images of an iteration (once)",
    "both encoders in every iteration",
)


class _Work:
    """The pool, the adapters, the teachers, and a batch of every task."""

    def __init__(self, options: dict[str, Any]) -> None:
        pool = random_pool(options)
        torch.manual_seed(0)
        self.method = Surgery(pool).to(options["device"])
        self.teacher = experts(pool)
        self.images = random_images(pool, options)
        self.optimizer = torch.optim.Adam(self.method.parameters(), lr=1e-3)

    @torch.no_grad()
    def encode(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The merged model's and the expert's feature of every image."""
        return {
            task: (self.method.encode(pixels)[-1], self.teacher.encode(pixels, task)[-1])
            for task, pixels in self.images.items()
        }

    def update(self, encoded: dict[str, tuple[Tensor, Tensor]]) -> float:
        total = 0.0
        for task, (own, target) in encoded.items():
            self.optimizer.zero_grad()
            loss = alignment(self.method.correct((own,), task), (target,))
            loss.backward()
            self.optimizer.step()
            total += loss.item()
        return total


def build(variant: str, options: dict[str, Any]) -> Step:
    """One iteration; returns its loss. Recording learns nothing and returns 0."""
    work = _Work(options)
    if variant == VARIANTS[0]:
        recorded = work.encode()
        return lambda: work.update(recorded)
    if variant == VARIANTS[1]:
        return lambda: 0.0 * len(work.encode())
    return lambda: work.update(work.encode())


def floor(options: dict[str, Any]) -> tuple[float, float]:
    """The least work of recording an iteration's images: (operations of two passes per image, bytes of T merges)."""
    work = _Work({**options, "tasks": 1, "batch_size": 1})
    with FlopCounterMode(display=False) as counter:
        work.encode()
    elements = sum(value.numel() for value in work.method.pool.base.values())
    width = torch.empty((), dtype=options["dtype"]).element_size()
    images = options["tasks"] * options["batch_size"]
    return counter.get_total_flops() * images, elements * options["tasks"] * (width + 2 * 4)
