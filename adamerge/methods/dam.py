"""DAM: Concrete AdaMerging that withstands a universal perturbation per task (defense-aware merging, ICLR 2025)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from adamerge.merging import Pool
from adamerge.methods.concrete import Concrete
from adamerge.models.clip import pictures_of


class DAM(Concrete):
    """Defense-aware merging: a perturbation per task stands for a backdoor's trigger.

    Args:
        pool: after any rule that keeps one encoder.
        image_size: side of the images in pixels; the encoder's when left out.
        options: those of Concrete.
    """

    def __init__(
        self, pool: Pool, image_size: int | None = None, train_coefficients: bool = True, **options: Any
    ) -> None:
        super().__init__(pool, train_coefficients=train_coefficients, **options)
        pictures = pictures_of(pool.encoder)
        self._pictures = pictures
        side = image_size or pictures.size
        shape = (3, side, side)
        self.perturbations = nn.ParameterList(torch.zeros(shape) for _ in pool.tasks)

    def perturbed(self, images: Tensor, task: str, bounded: bool) -> Tensor:
        """Normalised images (n, 3, H, W) with the task's perturbation, differentiable in it.

        uint8 pixels are perturbed in units of their range and, where `bounded`, clamped to it before they are
        normalised. (The public code clamps normalised images to [0, 1], which cuts off most of a picture.) Floats are
        taken as normalised already, and are not clamped.
        """
        delta = self.perturbations[self.task_index(task)]
        if images.dtype != torch.uint8:
            return images + delta
        pixels = images.to(delta.dtype) / 255.0 + delta
        return self._pictures.normalise((pixels.clamp(0.0, 1.0) if bounded else pixels) * 255.0, delta.dtype)
