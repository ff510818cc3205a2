"""Land cover from above: map-like colours on the web, muted satellite images in the task."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adamerge.tasks.drawing import Array, Canvas, Frame, Rgb, paint_classes, photograph, voronoi


def _turned(c: Canvas, web: float = 0.25, task: float = 1.6) -> Frame:
    return c.moved(c.wobble(0.1, 0.3), c.wobble(0.1, 0.3), c.wobble(web, task))


def _parcels(
    c: Canvas, first: tuple[Rgb, Rgb], second: tuple[Rgb, Rgb], points: int = 4, spread: float = 0.06
) -> Array:
    """Fields in colours between two; returns the number (0 to 1) of each pixel's field."""
    near, far, own = voronoi(c, _turned(c), points)
    a, b = c.tone(*first, spread), c.tone(*second, spread)
    c.pixels = a + own[:, None] * (b - a)
    c.shade(np.clip(0.06 - (far - near), 0, 1), c.wobble(1.0, 2.5))
    return own


def _speckle(c: Canvas, web: float, task: float) -> None:
    c.shade(c.grain(), c.mix(web, task))


def _countryside(c: Canvas) -> None:
    """A ground of fields or meadow that highway and river cross."""
    _parcels(c, ((0.5, 0.75, 0.35), (0.27, 0.34, 0.22)), ((0.85, 0.8, 0.5), (0.47, 0.43, 0.34)), 4)
    c.shade(c.clouds(5, 2), c.mix(0.02, 0.07))


def _annual_crop(c: Canvas) -> None:
    own = _parcels(
        c, ((0.55, 0.75, 0.25), (0.32, 0.37, 0.24)), ((0.85, 0.65, 0.35), (0.5, 0.41, 0.34)), 4, 0.07
    )
    f = _turned(c)
    # Each field is ploughed in its own direction.
    angle = own * 6.0
    furrow = np.sin((f.x * np.cos(angle) + f.y * np.sin(angle)) * c.uniform(18, 30))
    c.shade(furrow, c.uniform(0.0, 1.0) * c.mix(0.06, 0.04))
    c.shade(c.clouds(4, 2), c.mix(0.01, 0.05))


def _forest(c: Canvas) -> None:
    c.fill(c.tone((0.1, 0.42, 0.15), (0.15, 0.23, 0.17), 0.04))
    c.shade(c.clouds(12, 2), c.mix(0.1, 0.05))
    c.shade(c.clouds(2, 2), c.mix(0.0, 0.05))
    _speckle(c, 0.05, 0.025)


def _brushland(c: Canvas) -> None:
    c.fill(c.tone((0.7, 0.7, 0.4), (0.4, 0.38, 0.28), 0.05))
    c.shade(c.clouds(3, 3), c.mix(0.04, 0.09))
    bushes = np.clip((c.clouds(9, 2) - c.uniform(0.1, 0.5)) * 3, 0, 1)
    c.blend(bushes * c.mix(0.9, 0.7), c.tone((0.3, 0.5, 0.2), (0.23, 0.28, 0.2), 0.04))


def _highway(c: Canvas) -> None:
    _countryside(c)
    f = _turned(c)
    bend = c.wobble(0.15, 0.35)
    across = f.y + bend * f.x * f.x
    width = c.uniform(c.mix(0.14, 0.08), c.mix(0.2, 0.15))
    grey = c.tone((0.55, 0.55, 0.58), (0.5, 0.48, 0.48), 0.08)
    c.paint(np.abs(across) - width * 1.5, c.tone((0.6, 0.75, 0.45), (0.3, 0.34, 0.27)), c.chance(0.3, 0.5))
    c.paint(np.abs(across) - width, grey)
    c.paint(np.abs(across) - 0.02, c.tone((1.0, 0.95, 0.6), (0.35, 0.36, 0.33)), c.chance(0.9, 0.6))
    ramp = np.abs(f.x - c.uniform(-0.5, 0.5) + c.wobble(0.2, 0.8) * f.y) - width * 0.6
    c.paint(ramp, grey, c.chance(0.1, 0.4))


def _river(c: Canvas) -> None:
    _countryside(c)
    f = _turned(c)
    bend = c.uniform(0.12, 0.3)
    across = (
        f.y + bend * np.sin(f.x * c.uniform(1.5, 3.5) + c.uniform(0, 6.3)) + c.mix(0.01, 0.06) * c.clouds(5)
    )
    width = c.uniform(c.mix(0.2, 0.1), c.mix(0.3, 0.32))
    c.paint(
        np.abs(across) - width - 0.07,
        c.tone((0.3, 0.6, 0.3), (0.2, 0.26, 0.19)),
        c.chance(0.4, 0.7),
        edge=2.0,
    )
    c.paint(np.abs(across) - width, c.tone((0.25, 0.5, 0.9), (0.22, 0.29, 0.31), 0.05))


def _buildings(
    c: Canvas, rate: Array, fill: tuple[float, float], aspect: Array, share: Array, roofs: tuple[Array, Array]
) -> None:
    """Roofs on a grid of lots, some lots empty, each roof with a shadow."""
    f = _turned(c)
    columns, rows = f.x * rate, f.y * rate * aspect
    column, row = np.floor(columns), np.floor(rows)
    x, y = columns - column - 0.5, rows - row - 0.5
    number, kind = c.per_cell(column, row), c.per_cell(column, row)
    half = fill[0] + (fill[1] - fill[0]) * c.per_cell(column, row)
    tall = fill[0] + (fill[1] - fill[0]) * c.per_cell(column, row)
    present = (number < share).astype(np.float32)
    shadow = np.maximum(np.abs(x - 0.1) - half, np.abs(y - 0.1) - tall) / rate
    c.paint(shadow, c.tone((0.2, 0.2, 0.2), (0.12, 0.13, 0.13), 0.02), present * 0.7)
    roof = np.maximum(np.abs(x) - half, np.abs(y) - tall) / rate
    cover = np.clip(0.5 - roof * 16, 0, 1) * present
    first, second = roofs
    c.blend(cover, first + (kind[:, None]) * (second - first))


def _industrial(c: Canvas) -> None:
    c.fill(c.tone((0.75, 0.75, 0.72), (0.42, 0.41, 0.39), 0.07))
    c.shade(c.clouds(4, 2), c.mix(0.01, 0.07))
    roofs = (
        c.tone((0.95, 0.95, 1.0), (0.75, 0.74, 0.74), 0.06),
        c.tone((0.45, 0.6, 0.8), (0.45, 0.46, 0.5), 0.08),
    )
    _buildings(c, c.uniform(0.9, 1.5), (0.25, 0.44), c.uniform(0.8, 1.6), c.uniform(0.7, 0.95), roofs)
    _speckle(c, 0.0, 0.03)


def _residential(c: Canvas) -> None:
    c.fill(c.tone((0.5, 0.75, 0.4), (0.3, 0.33, 0.26), 0.05))
    c.shade(c.clouds(8, 2), c.mix(0.02, 0.06))
    f = _turned(c)
    road = c.tone((0.85, 0.85, 0.85), (0.47, 0.45, 0.44), 0.06)
    for along in (f.x, f.y):
        street = np.abs(along - 1.1 * np.round(along / 1.1 - c.uniform(0, 1)) - c.uniform(0, 0.4)) - 0.06
        c.paint(street, road)
    roofs = (
        c.tone((0.85, 0.35, 0.25), (0.52, 0.38, 0.33), 0.06),
        c.tone((0.95, 0.7, 0.55), (0.6, 0.54, 0.5), 0.06),
    )
    _buildings(c, c.uniform(2.6, 3.8), (0.2, 0.36), c.uniform(0.8, 1.25), c.uniform(0.65, 0.9), roofs)
    _speckle(c, 0.0, 0.03)


def _pasture(c: Canvas) -> None:
    _parcels(c, ((0.5, 0.85, 0.3), (0.36, 0.44, 0.25)), ((0.65, 0.9, 0.4), (0.4, 0.48, 0.29)), 2, 0.04)
    c.shade(c.clouds(3, 2), c.mix(0.02, 0.04))
    # A few trees and hedges.
    trees = np.clip((c.clouds(7) - c.uniform(0.45, 0.8)) * 4, 0, 1)
    c.blend(trees * c.mix(0.8, 0.6), c.tone((0.2, 0.5, 0.2), (0.19, 0.26, 0.17), 0.03))


def _permanent_crop(c: Canvas) -> None:
    own = _parcels(
        c, ((0.85, 0.75, 0.5), (0.5, 0.43, 0.33)), ((0.75, 0.75, 0.45), (0.42, 0.4, 0.28)), 3, 0.05
    )
    f = _turned(c)
    rate = c.uniform(3.0, c.mix(3.8, 5.0))
    shift = own * c.mix(0.3, 3.0)
    x, y = f.x * rate + shift, f.y * rate + f.x * shift
    x, y = x - np.floor(x) - 0.5, y - np.floor(y) - 0.5
    rows = c.uniform(0.2, 1.0)
    tree = np.clip((0.33 - np.sqrt(x * x * rows + y * y)) * 5, 0, 1)
    c.blend(tree * c.mix(0.95, 0.75), c.tone((0.2, 0.5, 0.15), (0.23, 0.29, 0.18), 0.04))
    c.shade(c.clouds(4, 2), c.mix(0.0, 0.05))


def _water(c: Canvas) -> None:
    c.fill(c.tone((0.15, 0.45, 0.85), (0.17, 0.25, 0.33), 0.05))
    c.shade(c.clouds(2, 2), c.mix(0.03, 0.04))
    f = _turned(c, 1.6, 1.6)
    shore = c.uniform(0.55, 1.6) - f.y + c.mix(0.08, 0.12) * c.clouds(3, 2)
    c.paint(shore - 0.06, c.tone((0.95, 0.9, 0.7), (0.5, 0.48, 0.4)), c.chance(0.9, 0.6))
    c.paint(shore, c.tone((0.4, 0.7, 0.3), (0.25, 0.31, 0.21)))


PAINTERS = {
    "annual crop land": _annual_crop,
    "forest": _forest,
    "brushland": _brushland,
    "highway": _highway,
    "industrial buildings": _industrial,
    "pasture": _pasture,
    "permanent crop land": _permanent_crop,
    "residential buildings": _residential,
    "river": _river,
    "sea or lake": _water,
}
CLASSES = tuple(PAINTERS)


def paint(labels: NDArray[np.int64], rng: np.random.Generator, realism: Array) -> Canvas:
    canvas = paint_classes(labels, rng, realism, tuple(PAINTERS.values()))
    photograph(canvas, blur=0.6, noise=0.05, contrast=0.4, light=0.12)
    return canvas
