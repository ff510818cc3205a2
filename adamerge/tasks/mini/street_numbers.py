"""A house number's digit: an enamel plate on the web, a blurred crop between other digits in the task."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adamerge.tasks.drawing import Array, Canvas, Frame, photograph
from adamerge.tasks.mini.glyphs import digit_strokes

CLASSES = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")


def _neighbour(c: Canvas, frame: Frame, ink: Array, width: Array) -> None:
    """Another digit of the number, in those pictures that have one."""
    (shown,) = np.nonzero(c.chance(0.0, 0.65)[:, 0, 0])
    part = Canvas(len(shown), c.rng, c.realism[shown])
    place = Frame(frame.x[shown], frame.y[shown], np.asarray(frame.scale)[shown])
    digits = c.rng.integers(0, 10, len(shown))
    part.pixels = c.pixels[shown]
    part.paint(
        digit_strokes(part, place, digits, width[shown], part.chance(0.2), part.mix(0.0, 0.05)), ink[shown]
    )
    c.pixels[shown] = part.pixels


def paint(labels: NDArray[np.int64], rng: np.random.Generator, realism: Array) -> Canvas:
    c = Canvas(len(labels), rng, realism)
    dark, pale = c.colour(0.15, c.mix(0.4, 0.55), 0.9), c.colour(c.mix(0.85, 0.55), 1.0, 0.4)
    swap = c.chance(0.25, 0.5)[:, None]
    wall, ink = dark + swap * (pale - dark), pale + swap * (dark - pale)
    c.fill(wall)
    c.shade(c.clouds(3, 2), c.mix(0.0, 0.13))
    # An enamel plate has a rim.
    rim = np.abs(c.box(0.0, 0.0, 0.9, 0.9, 0.15)) - 0.03
    c.paint(rim, ink, c.chance(0.7, 0.0))
    base = c.moved(
        c.wobble(0.04, 0.16),
        c.wobble(0.04, 0.14),
        c.wobble(0.03, 0.22),
        c.uniform(c.mix(0.75, 0.7), c.mix(0.85, 1.1)),
    )
    base.x = base.x + base.y * c.wobble(0.0, 0.2)
    stretch = c.uniform(c.mix(0.85, 0.6), c.mix(1.0, 1.05))
    width = c.uniform(0.16, c.mix(0.3, 0.4))
    way = c.chance(0.1, 0.25)
    shake = c.mix(0.01, 0.05)
    gap = (c.uniform(1.15, 1.5) + width) * stretch
    for side in (-1, 1):
        _neighbour(c, base.moved(side * gap, c.wobble(0, 0.08), 0.0, 1.0, stretch), ink, width)
    strokes = digit_strokes(c, base.moved(stretch=stretch), labels, width, way, shake)
    shadow = c.chance(0.0, 0.4) * 0.5
    c.paint(strokes + c.uniform(-0.02, 0.02), wall * 0.4, shadow, edge=3.0)
    c.paint(strokes, ink)
    photograph(c, blur=1.4, noise=0.07, contrast=0.65, light=0.3)
    return c
