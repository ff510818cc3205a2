"""How a picture becomes an image encoder's input."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adamerge.picture_fit import Fit

Colour = tuple[float, float, float]

# The mean and standard deviation of CLIP's training images (OpenAI's CLIP, arXiv 2103.00020).
MEAN: Colour = (0.48145466, 0.4578275, 0.40821073)
STD: Colour = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class PictureRules:
    """Brought to size x size pixels as `fit` says, RGB, to [0, 1], then (x - mean) / std by channel."""

    fit: Fit
    mean: Colour = MEAN
    std: Colour = STD

    @classmethod
    def of(cls, size: int) -> PictureRules:
        """CLIP's, at a side of `size` pixels."""
        return cls(Fit(size))

    @property
    def size(self) -> int:
        """Side of the encoder's input in pixels."""
        return self.fit.size

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
