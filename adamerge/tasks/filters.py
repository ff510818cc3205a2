"""The image filters that the corruptions are made of, on planes (H, W) or pictures (H, W, C)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Offsets = NDArray[np.int64]

_SOBEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float32)
_TAN_22, _TAN_67 = np.tan(np.pi / 8), np.tan(3 * np.pi / 8)


def weighted_shifts(values: Floats, offsets: Offsets, weights: Floats, border: str = "edge") -> Floats:
    """out[y, x] = sum over k of weights[k] * values[y + offsets[k, 0], x + offsets[k, 1]].

    Args:
        values: (H, W) or (H, W, C).
        offsets: (k, 2) in pixels, rows before columns.
        weights: (k,).
        border: numpy's padding mode for what lies outside.
    """
    height, width = values.shape[:2]
    reach = int(np.abs(offsets).max())
    padded = np.pad(values, [(reach, reach)] * 2 + [(0, 0)] * (values.ndim - 2), border)  # type: ignore[call-overload]
    total = np.zeros_like(values)
    for (down, right), weight in zip((offsets + reach).tolist(), weights, strict=True):
        total += weight * padded[down : down + height, right : right + width]
    return total


def gaussian_blur(plane: Floats, sigma: float) -> Floats:
    """Gaussian blur, cut off at four standard deviations; the border's values go on outside."""
    reach = int(4 * sigma + 0.5)
    steps = np.arange(-reach, reach + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights = (weights / weights.sum()).astype(np.float32)
    for axis in np.eye(2, dtype=np.int64):
        plane = weighted_shifts(plane, steps[:, None] * axis, weights)
    return plane


def correlate(plane: Floats, kernel: Floats, border: str = "reflect") -> Floats:
    """Correlation with a 3 x 3 kernel; the plane is mirrored at its outermost pixels."""
    return weighted_shifts(plane, np.argwhere(np.ones((3, 3))) - 1, kernel.ravel(), border)


def box_blur(plane: Floats) -> Floats:
    """The mean of 3 x 3 pixels."""
    return correlate(plane, np.full((3, 3), 1 / 9, np.float32))


def equalize(plane: Floats) -> Floats:
    """Histogram equalisation of whole numbers 0 to 255: the darkest that occurs becomes 0, the brightest 255."""
    values = plane.astype(np.uint8)
    counts = np.bincount(values.ravel(), minlength=256)
    below = counts.cumsum() - counts[values.min()]
    if below[-1] == 0:
        return plane
    return np.round(below / below[-1] * 255).clip(0)[values].astype(np.float32)


def canny_edges(plane: Floats, low: float, high: float) -> NDArray[np.bool_]:
    """Canny's edges (1986) as OpenCV defines them: Sobel gradients, their strength |gx| + |gy|.

    A pixel is on an edge where its gradient is the strongest across the edge and above `high`, or above `low`
    and joined by such pixels to one above `high`.
    """
    across, down = correlate(plane, _SOBEL, "edge"), correlate(plane, _SOBEL.T, "edge")
    strength = np.abs(across) + np.abs(down)
    weak = (strength > low) & _strongest_across(strength, across, down)
    edges = weak & (strength > high)
    while True:
        grown = _around(edges) & weak
        if (grown == edges).all():
            return edges
        edges = grown


def distance(edges: NDArray[np.bool_], most: int) -> Floats:
    """The distance of each pixel (H, W) to the nearest edge in pixels, `most` where it is further."""
    # The square of the distance is a minimum over rows of a minimum over columns.
    squares = np.where(edges, 0, most**2).astype(np.float32)
    for axis in (0, 1):
        size = squares.shape[axis]
        margins = [(most, most) if axis == a else (0, 0) for a in (0, 1)]
        padded = np.pad(squares, margins, constant_values=most**2)
        for step in range(-most, most + 1):
            shifted = padded.take(range(most + step, most + step + size), axis)
            squares = np.minimum(squares, shifted + step**2)
    return np.sqrt(squares)


def _strongest_across(strength: Floats, across: Floats, down: Floats) -> NDArray[np.bool_]:
    """Whether a pixel's gradient is not below that of its two neighbours in the gradient's direction."""
    height, width = strength.shape
    padded = np.pad(strength, 1)

    def neighbour(y: int, x: int) -> Floats:
        return padded[1 + y : 1 + y + height, 1 + x : 1 + x + width]

    flat = np.abs(down) < np.abs(across) * _TAN_22
    steep = np.abs(down) > np.abs(across) * _TAN_67
    falling = across * down >= 0
    sides = [
        # Of two equal neighbours one counts, so that an edge is one pixel thick.
        (strength > neighbour(0, -1)) & (strength >= neighbour(0, 1)),
        (strength > neighbour(-1, 0)) & (strength >= neighbour(1, 0)),
        (strength > neighbour(-1, -1)) & (strength > neighbour(1, 1)),
        (strength > neighbour(-1, 1)) & (strength > neighbour(1, -1)),
    ]
    return np.select([flat, steep, falling], sides[:3], sides[3])


def _around(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask and the eight neighbours of each of its pixels."""
    padded = np.pad(mask, 1)
    tall = padded[:-2] | padded[1:-1] | padded[2:]
    return tall[:, :-2] | tall[:, 1:-1] | tall[:, 2:]
