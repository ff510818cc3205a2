"""Vehicles from the side: icons on the web, small and partly hidden ones before a background in the task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from adamerge.tasks.drawing import Array, Canvas, Frame, paint_classes, photograph


def _backdrop(c: Canvas, ground: float = 0.45) -> tuple[Frame, Array]:
    """Background, the vehicle's frame (wheels stand at y 0.5) and its paintwork."""
    above = c.colour(c.mix(0.85, 0.35), c.mix(1.0, 0.85), c.mix(0.2, 0.4))
    c.fill(above)
    c.shade(c.clouds(3, 3), c.mix(0.0, 0.15))
    for _ in range(2):
        house = c.box(c.uniform(-1, 1), c.uniform(-0.6, 0.3), c.uniform(0.1, 0.5), c.uniform(0.2, 0.8))
        c.paint(house, c.colour(0.2, 0.9, 0.4), c.chance(0.0, 0.5))
    shift = c.wobble(0.02, 0.16)
    f = c.moved(
        c.wobble(0.03, 0.16), shift, c.wobble(0.0, 0.1), c.uniform(c.mix(0.9, 0.72), c.mix(1.0, 1.02))
    )
    c.paint(ground - f.y, c.tone((0.75, 0.78, 0.75), (0.42, 0.42, 0.4), 0.12), c.chance(0.5, 0.9))
    f = Frame(f.x * (1 - 2 * c.chance(0.5)), f.y, f.scale)
    return f, c.colour(c.mix(0.5, 0.2), 1.0, c.mix(1.0, 0.6))


def _dark(c: Canvas) -> Array:
    return c.tone((0.1, 0.1, 0.12), (0.14, 0.14, 0.15), 0.03)


def _glass(c: Canvas) -> Array:
    return c.tone((0.6, 0.85, 1.0), (0.3, 0.36, 0.4), 0.1)


def _wheels(
    c: Canvas, f: Frame, places: Sequence[Array | float], radius: Array | float, hub: float = 0.45
) -> None:
    dark, rim = _dark(c), c.tone((0.8, 0.8, 0.8), (0.5, 0.5, 0.5), 0.1)
    c.paint(f.ellipse(0.0, 0.5, 0.9, 0.06), dark, c.mix(0.0, 0.5), edge=2.0)
    for x in places:
        c.paint(f.circle(x, 0.5 - radius, radius), dark)
        c.paint(f.circle(x, 0.5 - radius, radius * hub), rim)


def _car(c: Canvas) -> None:
    f, body = _backdrop(c)
    front = c.uniform(0.2, 0.38)
    low = c.uniform(-0.18, -0.05)
    cabin = f.convex(
        [(-0.35, low - 0.22), (0.15, low - 0.22), (front + 0.1, low + 0.05), (-0.62, low + 0.05)]
    )
    c.paint(cabin, body)
    c.paint(np.maximum(cabin + 0.06, 0.04 - np.abs(f.x + 0.1)), _glass(c))
    c.paint(f.box(0.0, low + 0.2, 0.85, 0.19, 0.1), body)
    _wheels(c, f, (-0.5, 0.5), c.uniform(0.16, 0.2))


def _van(c: Canvas) -> None:
    f, body = _backdrop(c)
    top = c.uniform(-0.52, -0.38)
    hull = f.convex([(-0.85, top), (0.45, top), (0.68, -0.08), (0.85, 0.0), (0.85, 0.36), (-0.85, 0.36)])
    c.paint(hull, body)
    pane = f.convex([(0.2, top + 0.1), (0.42, top + 0.1), (0.58, -0.06), (0.2, -0.06)])
    c.paint(pane, _glass(c))
    c.paint(f.box(-0.2, top + 0.2, 0.25, 0.1), _glass(c), c.chance(0.3, 0.4))
    c.paint(f.segments([(0.12, top + 0.08, 0.12, 0.3)], 0.03), body * 0.5)
    _wheels(c, f, (-0.52, 0.52), c.uniform(0.14, 0.18))


def _bus(c: Canvas) -> None:
    f, body = _backdrop(c)
    top = c.uniform(-0.55, -0.4)
    c.paint(f.box(0.0, (top + 0.38) / 2, 0.95, (0.38 - top) / 2, 0.08), body)
    glass = _glass(c)
    step = c.uniform(0.24, 0.3)
    for index in range(7):
        x = -0.8 + step * index
        c.paint(f.box(x, top + 0.24, step * 0.38, 0.13), glass, (x < 0.85).astype(np.float32))
    c.paint(f.box(0.0, 0.12, 0.95, 0.03), c.colour(0.3, 1.0, 0.7), c.chance(0.4, 0.5))
    _wheels(c, f, (-0.55, 0.6), c.uniform(0.12, 0.16))


def _truck(c: Canvas) -> None:
    f, body = _backdrop(c)
    cargo = c.colour(0.4, 1.0, c.mix(0.6, 0.4))
    top = c.uniform(-0.65, -0.4)
    flat = c.chance(0.2, 0.3)
    c.paint(f.box(-0.3, (top + 0.25) / 2, 0.65, (0.25 - top) / 2), cargo, 1 - flat)
    c.paint(f.box(-0.3, 0.12, 0.65, 0.1), cargo, flat)
    c.paint(f.box(0.0, 0.3, 0.9, 0.06), _dark(c))
    roof = c.uniform(-0.4, -0.2)
    cab = f.convex([(0.42, roof), (0.7, roof), (0.9, 0.0), (0.9, 0.33), (0.42, 0.33)])
    c.paint(cab, body)
    c.paint(f.convex([(0.55, roof + 0.08), (0.69, roof + 0.08), (0.82, 0.0), (0.55, 0.0)]), _glass(c))
    _wheels(c, f, (-0.7, -0.38, 0.65), c.uniform(0.14, 0.18))


def _bicycle(c: Canvas) -> None:
    f, paintwork = _backdrop(c)
    paintwork = paintwork * 0.75
    radius, tyre = c.uniform(0.3, 0.36), c.uniform(0.035, 0.06)
    y = 0.5 - radius
    dark = _dark(c)
    for x in (-0.5, 0.5):
        ring = np.abs(f.circle(x, y, radius)) - tyre
        c.paint(ring, dark)
    seat, bar = c.uniform(-0.35, -0.22), c.uniform(-0.4, -0.28)
    frame = [
        (-0.5, y, -0.05, y + 0.02),
        (-0.05, y + 0.02, -0.2, seat),
        (-0.2, seat + 0.12, -0.5, y),
        (-0.17, seat + 0.12, 0.35, bar + 0.15),
    ]
    c.paint(
        f.segments([*frame, (-0.05, y + 0.02, 0.37, bar + 0.18), (0.3, bar, 0.5, y)], c.uniform(0.06, 0.1)),
        paintwork,
    )
    c.paint(f.segments([(-0.32, seat, -0.08, seat), (0.3, bar, 0.18, bar - 0.02)], 0.09), dark)


def _motorcycle(c: Canvas) -> None:
    f, body = _backdrop(c)
    radius = c.uniform(0.23, 0.28)
    y = 0.5 - radius
    dark = _dark(c)
    for x in (-0.58, 0.58):
        c.paint(f.circle(x, y, radius), dark)
        c.paint(f.circle(x, y, radius * 0.5), c.tone((0.85, 0.85, 0.85), (0.5, 0.5, 0.5), 0.1))
    c.paint(
        f.convex([(-0.25, 0.0), (0.25, 0.0), (0.15, 0.35), (-0.2, 0.35)]),
        c.tone((0.6, 0.6, 0.6), (0.35, 0.35, 0.35), 0.06),
    )
    c.paint(f.segments([(0.58, y, 0.33, -0.3), (-0.58, y, -0.1, 0.1)], 0.08), dark)
    c.paint(f.ellipse(0.12, -0.08, 0.28, 0.15), body)
    c.paint(f.segments([(-0.6, -0.08, -0.1, -0.02)], 0.13), dark)
    c.paint(f.segments([(-0.55, 0.02, -0.2, 0.08)], 0.1), body)
    c.paint(f.segments([(0.33, -0.32, 0.18, -0.35)], 0.08), dark)
    c.paint(f.circle(0.42, -0.18, 0.09), c.tone((1.0, 0.95, 0.6), (0.75, 0.73, 0.65)))


def _tractor(c: Canvas) -> None:
    f, body = _backdrop(c)
    top = c.uniform(-0.7, -0.5)
    dark = _dark(c)
    c.paint(
        f.segments([(-0.55, top, -0.5, 0.0), (0.0, top, 0.05, 0.0), (-0.6, top, 0.05, top)], 0.08), body * 0.7
    )
    c.paint(f.box(-0.27, (top + 0.0) / 2, 0.24, (0.0 - top) / 2 - 0.04), _glass(c), c.chance(0.8, 0.7))
    c.paint(f.box(0.35, 0.08, 0.4, 0.18, 0.05), body)
    c.paint(f.segments([(0.45, -0.1, 0.45, -0.42)], 0.07), dark)
    big, small = c.uniform(0.34, 0.42), c.uniform(0.17, 0.22)
    rim = c.tone((1.0, 0.85, 0.2), (0.6, 0.55, 0.4), 0.1)
    for x, radius in ((-0.38, big), (0.58, small)):
        c.paint(f.circle(x, 0.5 - radius, radius), dark)
        c.paint(f.circle(x, 0.5 - radius, radius * 0.5), rim)


def _train(c: Canvas) -> None:
    f, body = _backdrop(c)
    c.paint(np.abs(f.y - 0.5) - 0.035, _dark(c))
    top = c.uniform(-0.4, -0.25)
    glass = _glass(c)
    slope = c.uniform(0.1, 0.35)
    hull = f.convex([(-1.6, top), (0.75 - slope, top), (0.95, 0.1), (0.95, 0.38), (-1.6, 0.38)])
    c.paint(hull, body)
    c.paint(np.maximum(hull, np.abs(f.y - 0.2) - 0.05), c.colour(0.3, 1.0, 0.7), c.chance(0.7, 0.7))
    pitch = c.uniform(0.2, 0.28)
    window = np.abs(f.x - pitch * np.round(f.x / pitch)) - pitch * 0.32
    c.paint(np.maximum(np.maximum(window, np.abs(f.y - top - 0.18) - 0.08), f.x - 0.45 + slope * 0.5), glass)
    c.paint(
        f.convex(
            [(0.68 - slope * 0.7, top + 0.08), (0.76 - slope * 0.8, top + 0.08), (0.86, 0.05), (0.68, 0.05)]
        ),
        glass,
    )
    gap = c.uniform(-0.6, -0.25)
    c.paint(f.box(gap, 0.05, 0.025, 0.5), _dark(c) + 0.1)
    c.paint(
        f.segments([(-0.2, top, -0.05, top - 0.2), (-0.05, top - 0.2, -0.25, top - 0.25)], 0.04),
        _dark(c),
        c.chance(0.4, 0.6),
    )
    for offset in (-1.0, -0.8, -0.1, 0.1, 0.45, 0.65):
        c.paint(f.circle(offset, 0.42, 0.08), _dark(c))


def _boat(c: Canvas) -> None:
    f, body = _backdrop(c)
    sail = c.chance(0.5)
    deck = c.uniform(0.05, 0.2)
    white = c.tone((1.0, 1.0, 1.0), (0.85, 0.85, 0.84))
    mast = c.uniform(-0.9, -0.75)
    c.paint(f.segments([(0.0, mast, 0.0, deck)], 0.05), _dark(c) + 0.15, sail)
    c.paint(f.convex([(0.06, mast + 0.05), (0.6, deck - 0.08), (0.06, deck - 0.08)]), white, sail)
    c.paint(
        f.convex([(-0.06, mast + 0.15), (-0.06, deck - 0.08), (-0.45, deck - 0.08)]),
        c.colour(0.6, 1.0, 0.6),
        sail,
    )
    c.paint(f.box(-0.15, deck - 0.15, 0.4, 0.16), white, 1 - sail)
    c.paint(np.maximum(np.abs(f.y - deck + 0.17) - 0.05, np.abs(f.x + 0.15) - 0.32), _glass(c), 1 - sail)
    c.paint(f.box(-0.25, deck - 0.4, 0.09, 0.14), c.colour(0.3, 0.9, 0.9), 1 - sail)
    c.paint(f.convex([(-0.8, deck), (0.95, deck), (0.6, 0.45), (-0.65, 0.45)]), body)
    waves = 0.38 - f.y + 0.03 * np.sin(f.x * c.uniform(8, 14) + c.uniform(0, 6.3))
    c.paint(waves, c.tone((0.3, 0.6, 0.95), (0.3, 0.4, 0.45), 0.08))


def _aeroplane(c: Canvas) -> None:
    f, body = _backdrop(c, ground=0.75)
    f = f.moved(0.0, 0.1, c.wobble(0.1, 0.25))
    white = c.tone((0.95, 0.95, 0.97), (0.8, 0.8, 0.8), 0.07)
    half = c.uniform(0.12, 0.17)
    c.paint(f.convex([(-0.9, -0.55), (-0.7, -0.55), (-0.45, -0.05), (-0.85, -0.05)]), body)
    c.paint(f.box(0.0, 0.0, 0.92, half, 0.11), white)
    c.paint(f.convex([(-0.1, 0.02), (0.28, 0.02), (-0.3, 0.5), (-0.5, 0.5)]), white * 0.75)
    c.paint(
        f.convex([(0.05, -half), (0.2, -half), (-0.1, -0.4), (-0.2, -0.4)]), white * 0.85, c.chance(0.5, 0.7)
    )
    c.paint(f.ellipse(0.05, 0.22, 0.14, 0.07), body * 0.8, c.chance(0.7, 0.7))
    windows = np.abs(f.x - 0.14 * np.round(f.x / 0.14)) - 0.035
    c.paint(np.maximum(np.maximum(windows, np.abs(f.y + 0.04) - 0.035), np.abs(f.x) - 0.7), _glass(c) * 0.6)


PAINTERS = {
    "car": _car,
    "van": _van,
    "bus": _bus,
    "truck": _truck,
    "bicycle": _bicycle,
    "motorcycle": _motorcycle,
    "tractor": _tractor,
    "train": _train,
    "boat": _boat,
    "aeroplane": _aeroplane,
}
CLASSES = tuple(PAINTERS)


def paint(labels: NDArray[np.int64], rng: np.random.Generator, realism: Array) -> Canvas:
    canvas = paint_classes(labels, rng, realism, tuple(PAINTERS.values()))
    # Something thin stands in front of some.
    x = canvas.uniform(-1, 1)
    post = np.abs(canvas.x - x + canvas.wobble(0, 0.2) * canvas.y) - canvas.uniform(0.03, 0.09)
    canvas.paint(post, canvas.colour(0.1, 0.8, 0.4), canvas.chance(0.0, 0.35))
    photograph(canvas, blur=1.2, noise=0.06, contrast=0.55, light=0.25)
    return canvas
