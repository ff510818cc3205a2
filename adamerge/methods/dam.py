"""DAM: Concrete subspace learning that withstands a universal perturbation per task (defense-aware merging, ICLR 2025).

Jinluan Yang et al., "Mitigating the backdoor effect for multi-task model merging via safety-aware subspace". The only
public code is FusionBench's (clip_safe_concrete_*).
"""

from __future__ import annotations

from typing import Any, Literal

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
        space: in what the perturbation is added and clamped to [0, 1]. "normalised" is FusionBench's: the images after
            mean and standard deviation, of which the clamp cuts off more than half. "pixels" is their range before.
        trigger_norm: largest sum of magnitudes of a perturbation, which is scaled down to it. FusionBench's config has
            1000, but its code never reads it: None.
        options: those of Concrete.
    """

    def __init__(
        self,
        pool: Pool,
        image_size: int | None = None,
        train_coefficients: bool = True,
        space: Literal["normalised", "pixels"] = "normalised",
        trigger_norm: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(pool, train_coefficients=train_coefficients, **options)
        self._pictures = pictures_of(pool.encoder)
        side = image_size or self._pictures.size
        shape = (3, side, side)
        self.perturbations = nn.ParameterList(torch.zeros(shape) for _ in pool.tasks)
        self.space = space
        self.trigger_norm = trigger_norm

    def perturbation(self, task: str) -> Tensor:
        """The task's perturbation (3, S, S), within its norm."""
        delta: Tensor = self.perturbations[self.task_index(task)]
        if self.trigger_norm is None:
            return delta
        return delta * (self.trigger_norm / delta.abs().sum().clamp(min=self.trigger_norm))

    def perturbed(self, images: Tensor, task: str, bounded: bool) -> Tensor:
        """Normalised images (n, 3, H, W) with the task's perturbation, differentiable in it.

        Args:
            images: uint8 pixels, or floats, which are taken as normalised already.
            bounded: whether to clamp to [0, 1], in the space of the perturbation.
        """
        delta = self.perturbation(task)
        rules = self._pictures
        clean = rules.normalise(images, delta.dtype) if images.dtype == torch.uint8 else images
        if self.space == "normalised":
            shaken = clean + delta
            return shaken.clamp(0.0, 1.0) if bounded else shaken
        pixels = rules.denormalise(clean) + delta
        return rules.normalise((pixels.clamp(0.0, 1.0) if bounded else pixels) * 255.0, delta.dtype)
