"""Man-made places from above: upright, map-like plans on the web, turned aerial photographs in the task."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adamerge.tasks.drawing import Array, Canvas, Frame, paint_classes, photograph

_GRASS = (0.55, 0.8, 0.4), (0.33, 0.4, 0.24)
_ROAD = (0.6, 0.6, 0.63), (0.4, 0.4, 0.4)
_WHITE = (1.0, 1.0, 1.0), (0.82, 0.82, 0.8)
_WATER = (0.35, 0.65, 0.95), (0.15, 0.25, 0.31)
_EARTH = (0.85, 0.6, 0.4), (0.55, 0.42, 0.32)


def _view(c: Canvas) -> Frame:
    return c.moved(
        c.wobble(0.05, 0.25),
        c.wobble(0.05, 0.25),
        c.wobble(0.15, np.pi),
        c.uniform(c.mix(0.95, 0.75), c.mix(1.05, 1.25)),
    )


def _ground(c: Canvas) -> Frame:
    """Grass or bare land with patches, some with a building or trees at the side."""
    c.fill(c.tone(*_GRASS, 0.06))
    dry = np.clip(c.clouds(3, 2) * 1.5 + c.uniform(-1, 1), 0, 1)
    c.blend(dry * c.mix(0.15, 0.8), c.tone((0.8, 0.8, 0.5), (0.5, 0.46, 0.37), 0.07))
    trees = np.clip((c.clouds(8, 2) - 0.35) * 4, 0, 1)
    c.blend(trees * c.mix(0.1, 0.8), c.tone((0.3, 0.6, 0.3), (0.19, 0.26, 0.17), 0.03))
    f = _view(c)
    for _ in range(2):
        x, y = c.uniform(-1, 1), c.uniform(-1, 1)
        house = f.box(x, y, c.uniform(0.08, 0.25), c.uniform(0.08, 0.25))
        c.paint(house, c.colour(0.3, 0.9, 0.3), c.chance(0.0, 0.5))
    return f


def _dashes(along: Array, rate: Array | float) -> Array:
    return np.abs(along * rate - np.floor(along * rate) - 0.5) - 0.25


def _runway(c: Canvas) -> None:
    f = _ground(c)
    width = c.uniform(0.2, c.mix(0.32, 0.34))
    grey = c.tone((0.35, 0.35, 0.38), (0.33, 0.33, 0.34), 0.06)
    taxi = np.abs(f.x - c.uniform(0.55, 0.8)) - 0.09
    c.paint(taxi, grey + 0.1, c.chance(0.3, 0.6))
    strip = np.abs(f.x) - width
    c.paint(strip, grey)
    white = c.tone(*_WHITE)
    c.paint(np.maximum(np.abs(f.x) - 0.025, _dashes(f.y, 1.8)), white)
    # Threshold bars at one end.
    end = c.uniform(0.45, 0.8)
    bars = np.maximum(np.abs(f.y - end) - 0.13, np.abs(f.x) - width * 0.85)
    c.paint(np.maximum(bars, (np.abs(_dashes(f.x, 1.6 / width) + 0.25) - 0.22) / (1.6 / width)), white)
    c.paint(np.abs(strip + 0.05) - 0.015, white, c.chance(0.5, 0.5))


def _roundabout(c: Canvas) -> None:
    f = _ground(c)
    grey, white = c.tone(*_ROAD), c.tone(*_WHITE)
    radius = c.uniform(0.42, 0.58)
    width = c.uniform(0.1, 0.16)
    third = c.chance(0.3, 0.5)
    for angle in (0.0, 0.5, 1.0, 1.5):
        arm = f.moved(angle=np.pi * angle + c.wobble(0.02, 0.25))
        road = arm.box(1.2, 0.0, 1.0, width)
        c.paint(road, grey, 1 - third if angle == 1.5 else 1.0)
        c.paint(arm.box(1.3, 0.0, 0.5, 0.02), white, 0.7 - 0.7 * third if angle == 1.5 else 0.7)
    c.paint(f.circle(0.0, 0.0, radius), grey)
    c.paint(f.circle(0.0, 0.0, radius - width * 1.7), c.tone(*_GRASS))
    c.paint(f.circle(0.0, 0.0, 0.12), c.tone((0.3, 0.6, 0.3), (0.2, 0.28, 0.2), 0.08), c.chance(0.4, 0.6))


def _parking(c: Canvas) -> None:
    f = _ground(c)
    c.paint(f.box(0.0, 0.0, c.uniform(0.9, 1.3), c.uniform(0.85, 1.3)), c.tone(*_ROAD))
    rate, rows = c.uniform(2.6, c.mix(3.2, 3.8)), c.uniform(1.2, 1.6)
    column, row = np.floor(f.x * rate), np.floor(f.y * rows)
    x, y = f.x * rate - column - 0.5, f.y * rows - row - 0.5
    inside = (np.maximum(np.abs(f.x), np.abs(f.y)) < 0.95).astype(np.float32)
    white = c.tone(*_WHITE)
    line = np.maximum((0.5 - np.abs(x) - 0.06) / rate, (np.abs(y) - 0.36) / rows)
    c.paint(line, white, inside * c.mix(1.0, 0.7))
    car = np.maximum((np.abs(x) - 0.3) / rate, (np.abs(y) - c.uniform(0.26, 0.32)) / rows)
    taken = (c.per_cell(column, row) < c.uniform(0.5, 0.95)).astype(np.float32) * inside
    hue = np.stack([c.per_cell(column, row) for _ in range(3)], axis=1)
    grey = c.per_cell(column, row)[:, None]
    paintwork = grey + (hue - grey) * c.mix(0.9, 0.4)[:, None]
    c.blend(np.clip(0.5 - car * 16, 0, 1) * taken, paintwork)


def _tennis(c: Canvas) -> None:
    f = _ground(c)
    kind = c.rng.integers(0, 3, c.n)
    inner = np.array([(0.2, 0.4, 0.7), (0.3, 0.55, 0.35), (0.7, 0.4, 0.28)], np.float32)[kind][
        ..., None, None
    ]
    outer = np.array([(0.3, 0.55, 0.4), (0.6, 0.35, 0.28), (0.35, 0.5, 0.35)], np.float32)[kind][
        ..., None, None
    ]
    fade = c.mix(1.15, 0.8)[:, None]
    c.paint(f.box(0.0, 0.0, 0.72, 1.0), outer * fade + c.wobble(0.02, 0.08)[:, None])
    f = f.moved(scale=c.uniform(0.85, 1.0))
    c.paint(f.box(0.0, 0.0, 0.45, 0.85), inner * fade + c.wobble(0.02, 0.08)[:, None])
    white, line = c.tone(*_WHITE), c.uniform(0.02, 0.035)
    court = f.box(0.0, 0.0, 0.45, 0.85)
    c.paint(np.abs(court) - line, white)
    marks = [
        (-0.33, -0.85, -0.33, 0.85),
        (0.33, -0.85, 0.33, 0.85),
        (-0.33, -0.45, 0.33, -0.45),
        (-0.33, 0.45, 0.33, 0.45),
    ]
    c.paint(f.segments([*marks, (0.0, -0.45, 0.0, 0.45)], line * 1.7), white, 0.9)
    c.paint(f.box(0.0, 0.0, 0.55, line), white * 0.6)


def _stadium(c: Canvas) -> None:
    f = _ground(c)
    f = Frame(f.x * c.uniform(1.15, 1.45), f.y, f.scale)
    stands = f.box(0.0, 0.0, 0.95, 0.95, c.uniform(0.5, 0.9))
    c.paint(stands - 0.06, c.tone((0.3, 0.3, 0.3), (0.15, 0.15, 0.15)), 0.5, edge=3.0)
    c.paint(stands, c.tone((0.85, 0.85, 0.9), (0.58, 0.57, 0.57), 0.1))
    rows = np.sin(stands * c.uniform(35, 60))
    c.shade(rows * (stands < 0), c.mix(0.08, 0.05))
    c.paint(stands + 0.22, c.tone((0.85, 0.4, 0.25), (0.52, 0.3, 0.24), 0.06))
    c.paint(stands + c.uniform(0.36, 0.42), c.tone((0.3, 0.75, 0.25), (0.28, 0.42, 0.22), 0.05))
    field = np.abs(f.box(0.0, 0.0, 0.36, 0.48)) - 0.018
    c.paint(np.minimum(field, f.box(0.0, 0.0, 0.36, 0.018)), c.tone(*_WHITE), c.chance(0.8, 0.6))


def _harbour(c: Canvas) -> None:
    c.fill(c.tone(*_WATER))
    c.shade(c.clouds(4, 2), c.mix(0.02, 0.05))
    f = _view(c)
    quay = f.y + c.uniform(0.6, 0.9)
    c.paint(quay - 0.02, c.tone((0.8, 0.78, 0.72), (0.5, 0.49, 0.47)))
    rate, step = c.uniform(0.85, 1.3), c.uniform(2.8, 3.8)
    column = np.floor(f.x * rate)
    x = (f.x * rate - column - 0.5) / rate
    row = np.floor(f.y * step)
    y = (f.y * step - row - 0.5) / step
    wood = c.tone((0.85, 0.75, 0.55), (0.58, 0.55, 0.5), 0.07)
    c.paint(np.maximum(np.abs(x) - 0.045, -f.y - 0.9), wood)
    side = (x > 0).astype(np.float32)
    length = c.uniform(0.13, 0.17)
    boat = np.sqrt(((np.abs(x) - 0.24) / length) ** 2 + (y / 0.085) ** 2) - 1
    taken = (c.per_cell(column * 2 + side, row) < c.uniform(0.6, 0.95)) & (f.y > -0.6)
    hull = 0.75 + 0.25 * c.per_cell(column * 2 + side, row)
    c.blend(np.clip(0.5 - boat * 1.4, 0, 1) * taken, hull[:, None] * c.tone((1.0, 1.0, 1.0), (0.9, 0.9, 0.9)))


def _bridge(c: Canvas) -> None:
    ground = _ground(c)
    f = ground.moved(angle=c.wobble(0.05, 0.2))
    bank = c.mix(0.05, 0.12) * c.clouds(4)
    river = np.abs(f.y + bank) - c.uniform(0.42, 0.75)
    c.paint(river - 0.05, c.tone((0.9, 0.85, 0.65), (0.4, 0.39, 0.33)), c.chance(0.6, 0.6))
    c.paint(river, c.tone(*_WATER))
    width = c.uniform(0.12, 0.22)
    f = f.moved(c.wobble(0.05, 0.2), 0.0, c.wobble(0.0, 0.2))
    c.paint(
        np.maximum(np.abs(f.x - 0.1) - width, river),
        c.tone((0.1, 0.2, 0.4), (0.07, 0.1, 0.13), 0.02),
        c.mix(0.4, 0.8),
    )
    c.paint(np.abs(f.x) - width, c.tone((0.7, 0.7, 0.72), (0.55, 0.54, 0.53), 0.08))
    c.paint(np.abs(np.abs(f.x) - width) - 0.02, c.tone((0.9, 0.35, 0.25), (0.68, 0.66, 0.64), 0.08))
    c.paint(np.maximum(np.abs(f.x) - 0.02, _dashes(f.y, 2.0)), c.tone(*_WHITE), c.chance(0.8, 0.7))


def _tanks(c: Canvas) -> None:
    f = _ground(c)
    c.paint(
        f.box(0.0, 0.0, 1.2, 1.2), c.tone((0.85, 0.82, 0.75), (0.48, 0.45, 0.41), 0.07), c.chance(0.9, 0.75)
    )
    rate = c.uniform(0.95, c.mix(1.2, 1.6))
    x, y = f.x * rate + c.mix(0.0, 0.5) * c.chance(0.5), f.y * rate
    column, row = np.floor(x), np.floor(y)
    x, y = x - column - 0.5, y - row - 0.5
    present = (c.per_cell(column, row) < c.uniform(0.7, 1.0)).astype(np.float32)
    radius = c.uniform(0.28, 0.36) + 0.1 * c.per_cell(column, row)
    turn = c.uniform(0, 6.3)
    shade_x, shade_y = x - 0.12 * np.cos(turn), y - 0.12 * np.sin(turn)
    c.paint(
        (np.sqrt(shade_x**2 + shade_y**2) - radius) / rate,
        c.tone((0.5, 0.5, 0.5), (0.15, 0.15, 0.15)),
        present * 0.8,
    )
    away = np.sqrt(x * x + y * y)
    c.paint((away - radius) / rate, c.tone((1.0, 1.0, 1.0), (0.78, 0.77, 0.74), 0.08), present)
    c.paint((np.abs(away - radius * 0.8) - 0.02) / rate, c.tone((0.7, 0.7, 0.7), (0.55, 0.54, 0.53)), present)


def _crossroads(c: Canvas) -> None:
    f = _ground(c)
    grey, white = c.tone(*_ROAD), c.tone(*_WHITE)
    roof = c.colour(0.4, 0.85, 0.5)
    for sx in (-1, 1):
        for sy in (-1, 1):
            block = f.box(sx * 0.75, sy * 0.75, c.uniform(0.2, 0.35), c.uniform(0.2, 0.35))
            c.paint(block, roof * c.uniform(0.6, 1.2)[:, None], c.chance(0.5, 0.6))
    first, second = c.uniform(0.16, 0.26), c.uniform(0.16, 0.26)
    skew = f.moved(angle=c.wobble(0.0, 0.3))
    c.paint(np.minimum(np.abs(f.x) - first, np.abs(skew.y) - second), grey)
    apart = np.maximum(np.abs(f.x), np.abs(f.y)) - 0.45
    for across, along in ((f.x, f.y), (skew.y, skew.x)):
        c.paint(np.maximum(np.maximum(np.abs(across) - 0.018, _dashes(along, 2.5) / 2.5), -apart), white)
        stripes = np.maximum(np.abs(np.abs(along) - 0.36) - 0.06, np.abs(across) - 0.2)
        c.paint(np.maximum(stripes, _dashes(across, 8.0) / 8.0), white, c.chance(0.7, 0.6))


def _baseball(c: Canvas) -> None:
    _ground(c)
    f = _view(c).moved(0.0, 0.6, -np.pi / 4)
    # Home plate is the origin; the field opens between the two axes.
    wedge = np.maximum(-f.x, f.y)
    away = np.sqrt(f.x * f.x + f.y * f.y)
    grass, earth = c.tone((0.35, 0.75, 0.3), (0.3, 0.43, 0.23), 0.05), c.tone(*_EARTH)
    c.paint(np.maximum(wedge - 0.12, away - 1.45), earth, c.chance(0.8, 0.7))
    c.paint(np.maximum(wedge, away - 1.33), grass)
    c.paint(np.maximum(wedge - 0.03, away - c.uniform(0.85, 1.0)), earth)
    side = c.uniform(0.22, 0.27)
    c.paint(f.box(side + 0.09, -side - 0.09, side, side), grass)
    c.paint(f.circle(side + 0.09, -side - 0.09, 0.08), earth)
    c.paint(f.circle(0.02, -0.02, 0.14), earth)
    c.paint(
        f.segments([(0.0, 0.0, 1.3, 0.0), (0.0, 0.0, 0.0, -1.3)], 0.03), c.tone(*_WHITE), c.chance(0.9, 0.7)
    )


PAINTERS = {
    "runway": _runway,
    "roundabout": _roundabout,
    "parking lot": _parking,
    "tennis court": _tennis,
    "stadium": _stadium,
    "harbour": _harbour,
    "bridge": _bridge,
    "storage tanks": _tanks,
    "crossroads": _crossroads,
    "baseball diamond": _baseball,
}
CLASSES = tuple(PAINTERS)


def paint(labels: NDArray[np.int64], rng: np.random.Generator, realism: Array) -> Canvas:
    canvas = paint_classes(labels, rng, realism, tuple(PAINTERS.values()))
    photograph(canvas, blur=0.8, noise=0.06, contrast=0.45, light=0.2)
    return canvas
