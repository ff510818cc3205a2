"""How a picture becomes an image encoder's input."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

Colour = tuple[float, float, float]

# The mean and standard deviation of CLIP's training images (OpenAI's CLIP, arXiv 2103.00020).
MEAN: Colour = (0.48145466, 0.4578275, 0.40821073)
STD: Colour = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class PictureRules:
    """Shorter side to `size` pixels (bicubic), centre crop, RGB, to [0, 1], then (x - mean) / std by channel."""

    size: int
    mean: Colour = MEAN
    std: Colour = STD
    interpolation: str = "bicubic"

    def normalise(self, pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """uint8 pixels (n, 3, H, W) as normalised floats."""
        mean, std = self._columns(pixels.device, dtype)
        return (pixels.to(dtype) / 255.0 - mean) / std

    def denormalise(self, images: Tensor) -> Tensor:
        """Normalised floats (n, 3, H, W) as pixels in [0, 1]."""
        mean, std = self._columns(images.device, images.dtype)
        return images * std + mean

    def _columns(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(c, device=device, dtype=dtype).view(3, 1, 1) for c in (self.mean, self.std))
        return mean, std
