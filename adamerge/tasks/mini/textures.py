"""Textures: flat patterns on the web, turned, lit and uneven surfaces in the task."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adamerge.tasks.drawing import Array, Canvas, Frame, paint_classes, photograph, voronoi


def _surface(c: Canvas, turn: float = 1.0) -> tuple[Frame, Array, Array]:
    """The surface's frame (turned, tilted and bent), ground already filled; and two colours."""
    dark = c.colour(c.mix(0.1, 0.05), c.mix(0.4, 0.6), c.mix(0.9, 0.5))
    light = c.colour(c.mix(0.8, 0.45), 1.0, c.mix(0.5, 0.5))
    swap = c.chance(0.5)[:, None]
    ground, ink = light + swap * (dark - light), dark + swap * (light - dark)
    c.fill(ground)
    c.shade(c.clouds(4, 2), c.mix(0.0, 0.1))
    quarter = c.chance(0.5) * np.float32(np.pi / 2)
    f = c.moved(c.uniform(-0.5, 0.5), c.uniform(-0.5, 0.5), quarter + c.wobble(0.12, turn * np.pi / 2))
    f = f.tilted(c.wobble(0, 0.25), c.wobble(0, 0.25))
    bend = c.mix(0.0, 0.1)
    return Frame(f.x + bend * c.clouds(2), f.y + bend * c.clouds(2)), ground, ink


def _wave(phase: Array) -> Array:
    """Triangle wave of period 1 between -0.5 and 0.5: distance-like across stripes."""
    return 0.5 - np.abs(phase - np.floor(phase) - 0.5) * 2


def _striped(c: Canvas) -> None:
    f, _, ink = _surface(c)
    rate = c.uniform(c.mix(1.5, 1.5), c.mix(2.5, 4.5))
    c.paint((_wave(f.x * rate) + c.wobble(0.1, 0.2)) / (2 * rate), ink)


def _chequered(c: Canvas) -> None:
    f, _, ink = _surface(c)
    rate = c.uniform(c.mix(1.0, 1.0), c.mix(1.7, 2.4))
    a, b = _wave(f.x * rate), _wave(f.y * rate)
    product = np.sign(a * b) * np.minimum(np.abs(a), np.abs(b))
    c.paint(product / (2 * rate), ink)


def _cells(f: Frame, rate: Array, shift: Array | float = 0.0) -> tuple[Array, Array, Array, Array]:
    """Column and row of each pixel's cell, and the place in it, -0.5 to 0.5; odd rows shift by `shift`."""
    row = np.floor(f.y * rate)
    x = f.x * rate + shift * (row - 2 * np.floor(row / 2))
    column = np.floor(x)
    return column, row, x - column - 0.5, f.y * rate - row - 0.5


def _dotted(c: Canvas) -> None:
    f, _, ink = _surface(c)
    rate = c.uniform(c.mix(1.6, 1.6), c.mix(2.4, 3.6))
    column, row, x, y = _cells(f, rate, c.chance(0.5) * 0.5)
    loose = c.mix(0.0, 0.14)
    x = x + loose * (2 * c.per_cell(column, row) - 1)
    y = y + loose * (2 * c.per_cell(column, row) - 1)
    c.paint((np.sqrt(x * x + y * y) - c.uniform(0.22, 0.34)) / rate, ink)


def _zigzagged(c: Canvas) -> None:
    f, _, ink = _surface(c)
    rate = c.uniform(c.mix(1.2, 1.2), c.mix(1.8, 2.8))
    across = c.uniform(c.mix(0.9, 0.8), c.mix(1.4, 2.0))
    bent = f.y + _wave(f.x * across) * c.uniform(0.35, 0.55) / across
    c.paint((_wave(bent * rate) + c.wobble(0.05, 0.15)) / (2.6 * rate), ink)


def _woven(c: Canvas) -> None:
    f, ground, ink = _surface(c)
    rate = c.uniform(c.mix(1.2, 1.2), c.mix(1.8, 2.2))
    c.fill(np.minimum(ground, ink) * 0.35)
    column, row, x, y = _cells(f, rate)
    odd = (column + row) - 2 * np.floor((column + row) / 2)
    thick = c.uniform(0.32, 0.42)
    across, along = np.abs(x) - thick, np.abs(y) - thick
    across, along = np.abs(x) - thick, np.abs(y) - thick
    # The strand on top changes from cell to cell; the other one dives under it.
    for top in (np.float32(1.0), None):
        for strand, bulge, here, colour in ((along, x, odd, ink), (across, y, 1 - odd, ground)):
            cover = np.clip(0.5 - strand * (16 / rate), 0, 1) * (top if top is not None else here)
            c.blend(cover, colour * (1 - 1.2 * bulge * bulge)[:, None])


def _cracked(c: Canvas) -> None:
    f, ground, ink = _surface(c)
    c.fill(np.maximum(ground, ink))
    c.shade(c.clouds(5, 2), c.mix(0.03, 0.1))
    rough = c.mix(0.05, 0.1)
    f = Frame(c.x + rough * c.clouds(6), c.y + rough * c.clouds(6))
    near, far, own = voronoi(c, f, 9)
    c.shade(own - 0.5, c.mix(0.05, 0.2))
    c.paint(far - near - c.uniform(0.06, c.mix(0.12, 0.14)), np.minimum(ground, ink) * 0.5)


def _marbled(c: Canvas) -> None:
    f, _, ink = _surface(c)
    flow = f.x * c.uniform(1.0, 1.8) + c.clouds(2, 3) * c.uniform(0.8, 1.3)
    vein = np.abs(np.sin(np.pi * flow)) ** np.float32(0.7)
    c.blend(1 - vein, ink)
    c.blend(np.clip(c.clouds(3, 2), 0, 1) * 0.4, ink)


def _gridded(c: Canvas) -> None:
    f, _, ink = _surface(c)
    rate = c.uniform(c.mix(1.3, 1.3), c.mix(2.0, 2.8))
    _, _, x, y = _cells(f, rate)
    lines = np.minimum(0.5 - np.abs(x), 0.5 - np.abs(y))
    c.paint((lines - c.uniform(0.07, 0.14)) / rate, ink)


def _honeycombed(c: Canvas) -> None:
    f, ground, ink = _surface(c)
    rate = c.uniform(c.mix(1.2, 1.2), c.mix(1.7, 2.3))
    x, y = f.x * rate, f.y * rate
    # The nearer of two interleaved rectangular lattices of centres.
    tall = np.float32(np.sqrt(3))
    x1, y1 = x - np.round(x), y - tall * np.round(y / tall)
    x2, y2 = x - np.floor(x) - 0.5, y - tall * (np.floor(y / tall) + 0.5)
    first = x1 * x1 + y1 * y1 < x2 * x2 + y2 * y2
    x, y = np.abs(np.where(first, x1, x2)), np.abs(np.where(first, y1, y2))
    hexagon = np.maximum(x, 0.5 * x + tall / 2 * y)
    c.fill(ink)
    c.paint((hexagon - c.uniform(0.36, 0.43)) / rate, ground)
    c.shade(np.clip(0.3 - hexagon, 0, 1), c.wobble(0.0, 1.0))


def _sprinkled(c: Canvas) -> None:
    f, _, ink = _surface(c)
    rate = c.uniform(c.mix(1.4, 1.5), c.mix(1.8, 2.6))
    for layer in range(2):
        column, row, x, y = _cells(f.moved(0.37 * layer, 0.21 * layer, 0.4 * layer), rate)
        angle = c.per_cell(column, row) * np.float32(np.pi)
        x, y = x + 0.3 * (c.per_cell(column, row) - 0.5), y + 0.3 * (c.per_cell(column, row) - 0.5)
        cos, sin = np.cos(angle), np.sin(angle)
        along, across = np.abs(cos * x + sin * y), np.abs(cos * y - sin * x)
        stroke = np.maximum(along - c.uniform(0.2, 0.32), across - c.uniform(0.06, 0.1))
        c.paint(stroke / rate, ink if layer == 0 else c.colour(0.1, 1.0, 0.9))


PAINTERS = {
    "striped": _striped,
    "chequered": _chequered,
    "dotted": _dotted,
    "zigzagged": _zigzagged,
    "woven": _woven,
    "cracked": _cracked,
    "marbled": _marbled,
    "gridded": _gridded,
    "honeycombed": _honeycombed,
    "sprinkled": _sprinkled,
}
CLASSES = tuple(PAINTERS)


def paint(labels: NDArray[np.int64], rng: np.random.Generator, realism: Array) -> Canvas:
    canvas = paint_classes(labels, rng, realism, tuple(PAINTERS.values()))
    photograph(canvas, blur=0.7, noise=0.05, contrast=0.45, light=0.25)
    return canvas
