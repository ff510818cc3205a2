"""The seven corruptions of the robustness suite (Hendrycks and Dietterich, ICLR 2019).

Definitions and strengths of Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions
and Perturbations" (2019, arXiv:1903.12261), and of their generators.

    auto      ImageNet-C's strengths for pictures of 128 px and more, CIFAR-10-C's for smaller ones, at the model's
              resolution.
    cifar     CIFAR-10-C's at any size, at the source's resolution, pixelate by way of 28 and 32 px (severity 2): what
              the papers of this field did to their pictures. Hardly anything is left of a large pixelated picture.
    imagenet  ImageNet-C's at any size, at the source's resolution.

What differs from the generators: values are rounded where they cut the fraction off; the distances in `spatter` are
Euclidean where theirs are approximate; and no result is stored as JPEG, as ImageNet-C's are.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from adamerge.tasks.filters import (
    Floats,
    box_blur,
    canny_edges,
    correlate,
    distance,
    equalize,
    gaussian_blur,
    weighted_shifts,
)

Pixels = NDArray[np.uint8]

CORRUPTIONS = ("motion_blur", "impulse_noise", "gaussian_noise", "pixelate", "spatter", "contrast", "jpeg")
Strengths = Literal["auto", "cifar", "imagenet"]
SMALL_BELOW = 128
"""With `auto`, pictures with a shorter side below this many pixels get the strengths of the small pictures."""
_CIFAR_SIDE = 32  # to which CIFAR-10-C's generator pixelates whatever it is given

# The strengths of severities 1 to 5. Motion blur: radius and standard deviation in pixels. Impulse noise: share of
# the values. Gaussian noise: standard deviation, white being 1. Pixelate: the smaller picture's side, the side
# being 1. Spatter: mean, standard deviation and blur of the liquid's noise, its threshold, its strength (water) or
# the blur of its rim (mud), and whether it is mud. Contrast: the share that is kept. JPEG: quality.
_LARGE: dict[str, tuple[Any, ...]] = {
    "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),
    "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
    "spatter": (
        (0.65, 0.3, 4, 0.69, 0.6, False),
        (0.65, 0.3, 3, 0.68, 0.6, False),
        (0.65, 0.3, 2, 0.68, 0.5, False),
        (0.65, 0.3, 1, 0.65, 1.5, True),
        (0.67, 0.4, 1, 0.65, 1.5, True),
    ),
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
    "jpeg": (25, 18, 15, 10, 7),
}
_SMALL: dict[str, tuple[Any, ...]] = {
    "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.1),
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
    "spatter": (
        (0.62, 0.1, 0.7, 0.7, 0.5, False),
        (0.65, 0.1, 0.8, 0.7, 0.5, False),
        (0.65, 0.3, 1, 0.69, 0.5, False),
        (0.65, 0.1, 0.7, 0.69, 0.6, True),
        (0.65, 0.1, 0.5, 0.68, 0.6, True),
    ),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "jpeg": (80, 65, 58, 50, 40),
}
_WATER = np.array([175, 238, 238], np.float32) / 255
_MUD = np.array([63, 42, 20], np.float32) / 255
_RELIEF = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], np.float32)


@dataclass(frozen=True)
class Corruption:
    """A corruption of a whole set of pictures: what happens to a picture depends on its number alone.

    Args:
        name: one of CORRUPTIONS.
        severity: 1 to 5; the robustness suite has 2.
        strengths: auto, cifar or imagenet, see above.

    Raises:
        ValueError: another name, severity or kind of strengths.
    """

    name: str
    severity: int = 2
    strengths: Strengths = "auto"

    def __post_init__(self) -> None:
        if self.name not in CORRUPTIONS:
            raise ValueError(f"no corruption '{self.name}'; there are {', '.join(CORRUPTIONS)}")
        if self.severity not in range(1, 6):
            raise ValueError(f"severity is {self.severity}; it must be 1, 2, 3, 4 or 5")
        if self.strengths not in get_args(Strengths):
            raise ValueError(f"strengths is '{self.strengths}'; it must be auto, cifar or imagenet")

    def __str__(self) -> str:
        kind = "" if self.strengths == "auto" else f" ({self.strengths})"
        return f"{self.name} {self.severity}{kind}"

    @property
    def at_source(self) -> bool:
        """Whether a picture is corrupted before it is resized for the model."""
        return self.strengths != "auto"

    def __call__(self, pixels: Pixels, index: int) -> Pixels:
        """The corrupted picture number `index`, uint8 (H, W, 3); `pixels` stays as it is."""
        rng = np.random.default_rng((zlib.crc32(f"{self.name} {self.severity}".encode()), index))
        return corrupt(pixels, self.name, self.severity, rng, self.strengths)


def corrupt(
    pixels: Pixels, name: str, severity: int, rng: np.random.Generator, strengths: Strengths = "auto"
) -> Pixels:
    """A corrupted copy of a picture.

    Args:
        pixels: uint8 (H, W, 3), RGB.
        name: one of CORRUPTIONS.
        severity: 1 to 5.
        rng: for what is drawn: noise, angle, drops.
        strengths: auto, cifar or imagenet. With cifar a pixelated picture has 32 x 32 pixels.

    Raises:
        ValueError: another name, severity or kind of strengths.
    """
    Corruption(name, severity, strengths)
    small = min(pixels.shape[:2]) < SMALL_BELOW if strengths == "auto" else strengths == "cifar"
    strength = (_SMALL if small else _LARGE)[name][severity - 1]
    if name == "pixelate":
        side = (_CIFAR_SIDE, _CIFAR_SIDE) if strengths == "cifar" else (pixels.shape[1], pixels.shape[0])
        return _pixelate(pixels, strength, side)
    if name == "jpeg":
        return _jpeg(pixels, strength)
    x: Floats = pixels.astype(np.float32) / 255
    match name:
        case "motion_blur":
            x = _motion_blur(x, strength, rng.uniform(-45, 45))
        case "impulse_noise":
            x = _impulse_noise(x, strength, rng)
        case "gaussian_noise":
            x = x + rng.normal(0, strength, x.shape)
        case "spatter":
            x = _spatter(x, strength, rng)
        case "contrast":
            mean = x.mean((0, 1), dtype=np.float64)  # of each channel
            x = (x - mean) * strength + mean
    return np.round(255 * x.clip(0, 1)).astype(np.uint8)


def _motion_blur(x: Floats, strength: tuple[int, float], angle: float) -> Floats:
    """ImageMagick's motion blur: half a Gaussian along a line of 2 * radius + 1 pixels from each pixel on.

    Args:
        angle: the line's direction in degrees, from rightwards to downwards.
    """
    radius, sigma = strength
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    direction = np.array([np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))])
    offsets = np.ceil(steps[:, None] * direction - 0.5).astype(np.int64)
    return weighted_shifts(x, offsets, (weights / weights.sum()).astype(np.float32))


def _impulse_noise(x: Floats, share: float, rng: np.random.Generator) -> Floats:
    """Salt and pepper, half and half, on single values (of one channel)."""
    hit, salt = rng.random(x.shape) < share, rng.random(x.shape) < 0.5
    return np.where(hit, salt.astype(np.float32), x)


def _pixelate(pixels: Pixels, share: float, size: tuple[int, int]) -> Pixels:
    """Down to a share of `size` (width, height) and up to it again, each pixel the mean of the box that it covers."""
    from PIL.Image import Resampling, fromarray

    width, height = size
    small = fromarray(pixels).resize((int(width * share), int(height * share)), Resampling.BOX)
    return np.asarray(small.resize(size, Resampling.BOX))


def _jpeg(pixels: Pixels, quality: int) -> Pixels:
    from PIL import Image

    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file).convert("RGB"))


def _spatter(x: Floats, strengths: tuple[Any, ...], rng: np.random.Generator) -> Floats:
    """Drops of liquid, where blurred noise is above a threshold: water that shines, or mud that covers."""
    mean, deviation, blur, threshold, strength, mud = strengths
    liquid = gaussian_blur(rng.normal(mean, deviation, x.shape[:2]).astype(np.float32), blur)
    liquid[liquid < threshold] = 0
    if not mud:
        return x + strength * _shine(liquid)[..., None] * _WATER
    cover = gaussian_blur((liquid > threshold).astype(np.float32), strength)
    cover[cover < 0.8] = 0
    return x * (1 - cover[..., None]) + cover[..., None] * _MUD


def _shine(liquid: Floats) -> Floats:
    """How brightly drops shine, 0 to 1: a relief of the distance to their rims, lit from the lower right.

    The whole numbers in between are the generator's.
    """
    depth = np.floor(255 * liquid.clip(0, 1))
    from_rim = distance(canny_edges(depth, 50, 150), most=20)
    height = equalize(np.floor(box_blur(from_rim)))
    relief = np.round(box_blur(correlate(height, _RELIEF).clip(0, 255)))
    shine = depth * relief
    # A small picture may have no drop at all.
    return shine / max(float(shine.max()), 1.0)
