"""Traffic signs: icons on the web, tilted, dim and blurred signs before clutter in the task."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adamerge.tasks.drawing import Array, Canvas, Frame, paint_classes, photograph
from adamerge.tasks.mini.glyphs import digit_strokes


def _stage(c: Canvas) -> Frame:
    """Background and the frame of the sign, which spans about -1 to 1."""
    sky = c.colour(c.mix(0.8, 0.25), c.mix(1.0, 0.9), c.mix(0.15, 0.5))
    c.fill(sky)
    c.shade(c.clouds(3, 3), c.mix(0.0, 0.16))
    for _ in range(2):
        block = c.moved(c.uniform(-1, 1), c.uniform(-1, 1), c.uniform(0, 3.0))
        c.paint(
            block.box(0.0, 0.0, c.uniform(0.1, 0.7), c.uniform(0.1, 0.5)),
            c.colour(0.1, 0.9, 0.5),
            c.chance(0, 0.6),
        )
    pole = c.moved(c.wobble(0.0, 0.15), 0.0, c.wobble(0, 0.1)).box(0.0, 1.0, 0.06, 1.0)
    c.paint(pole, c.tone((0.6, 0.6, 0.6), (0.35, 0.35, 0.35), 0.1), c.chance(0.3, 0.7))
    frame = c.moved(
        c.wobble(0.03, 0.2),
        c.wobble(0.03, 0.2),
        c.wobble(0.02, 0.22),
        c.uniform(c.mix(0.85, 0.55), c.mix(0.95, 0.85)),
        c.uniform(c.mix(0.98, 0.7), 1.0),
    )
    return frame.tilted(c.wobble(0.0, 0.25), c.wobble(0.0, 0.25))


def _red(c: Canvas) -> Array:
    return c.tone((0.9, 0.08, 0.1), (0.62, 0.16, 0.17), 0.07)


def _blue(c: Canvas) -> Array:
    return c.tone((0.05, 0.3, 0.9), (0.14, 0.27, 0.55), 0.07)


def _white(c: Canvas) -> Array:
    return c.tone((1.0, 1.0, 1.0), (0.8, 0.8, 0.78), 0.06)


def _black(c: Canvas) -> Array:
    return c.tone((0.0, 0.0, 0.0), (0.15, 0.15, 0.17), 0.05)


def _stop(c: Canvas) -> None:
    f = _stage(c)
    body = f.regular(8, 0.9, np.pi / 8)
    white = _white(c)
    c.paint(body, white)
    c.paint(body + c.uniform(0.05, 0.1), _red(c))
    s = [(-0.41, -0.2), (-0.58, -0.2), (-0.6, -0.05), (-0.42, 0.05), (-0.44, 0.2), (-0.61, 0.2)]
    t = [(-0.17, 0.2), (-0.17, -0.2), (-0.3, -0.2), (-0.04, -0.2)]
    p = [(0.42, 0.22), (0.42, -0.2), (0.58, -0.2), (0.58, 0.02), (0.42, 0.02)]
    letters = np.minimum(np.minimum(f.path(s, 0.08), f.path(t, 0.08)), f.path(p, 0.08))
    c.paint(np.minimum(letters, np.abs(f.box(0.19, 0.0, 0.1, 0.2, 0.05)) - 0.035), white)


def _yield(c: Canvas) -> None:
    f = _stage(c).moved(0.0, -0.22)
    body = f.regular(3, 0.52, -np.pi / 2)
    c.paint(body, _red(c))
    c.paint(body + c.uniform(0.16, 0.24), _white(c))


def _no_entry(c: Canvas) -> None:
    f = _stage(c)
    c.paint(f.circle(0.0, 0.0, 0.95), _white(c))
    c.paint(f.circle(0.0, 0.0, 0.89), _red(c))
    c.paint(f.box(0.0, 0.0, 0.62, c.uniform(0.13, 0.2)), _white(c))


def _speed_limit(c: Canvas) -> None:
    f = _stage(c)
    c.paint(f.circle(0.0, 0.0, 0.95), _red(c))
    c.paint(f.circle(0.0, 0.0, c.uniform(0.68, 0.76)), _white(c))
    black = _black(c)
    way = np.zeros((c.n, 1, 1), np.float32)
    tens = c.rng.integers(2, 10, c.n)
    width = c.uniform(0.2, 0.32)
    c.paint(digit_strokes(c, f.moved(-0.27, 0.0, scale=0.46), tens, width, way), black)
    c.paint(digit_strokes(c, f.moved(0.27, 0.0, scale=0.46), tens * 0, width, way), black)


def _end(c: Canvas) -> None:
    f = _stage(c)
    black = _black(c)
    c.paint(f.circle(0.0, 0.0, 0.95), black)
    disc = f.circle(0.0, 0.0, 0.88)
    c.paint(disc, _white(c))
    turned = f.moved(angle=-np.pi / 4 + c.wobble(0, 0.08))
    width = c.uniform(0.045, 0.07)
    for offset in (-0.24, 0.0, 0.24):
        c.paint(np.maximum(turned.box(0.0, offset, 1.2, width), disc), black)


def _arrow(f: Frame, width: Array) -> Array:
    head = f.convex([(0.0, -0.68), (0.4, -0.2), (-0.4, -0.2)])
    return np.minimum(head, f.box(0.0, 0.2, width, 0.42))


def _turn(c: Canvas, side: float) -> None:
    f = _stage(c)
    rim = c.chance(0.5, 0.8)
    c.paint(f.circle(0.0, 0.0, 0.95), _white(c), rim)
    c.paint(f.circle(0.0, 0.0, 0.89), _blue(c))
    white = _white(c)
    f.x = f.x * side
    width = c.uniform(0.2, 0.3)
    # The bent shaft comes from below; a straight one points sideways.
    bent = c.chance(0.4, 0.75)
    head = f.convex([(0.7, -0.1), (0.25, 0.28), (0.25, -0.48)])
    c.paint(np.minimum(head, f.path([(-0.25, 0.6), (-0.25, -0.1), (0.3, -0.1)], width)), white, bent)
    c.paint(np.minimum(head, f.path([(-0.6, -0.1), (0.3, -0.1)], width)), white, 1 - bent)


def _turn_left(c: Canvas) -> None:
    _turn(c, -1.0)


def _turn_right(c: Canvas) -> None:
    _turn(c, 1.0)


def _ahead(c: Canvas) -> None:
    f = _stage(c)
    c.paint(f.circle(0.0, 0.0, 0.95), _white(c), c.chance(0.5, 0.8))
    c.paint(f.circle(0.0, 0.0, 0.89), _blue(c))
    c.paint(_arrow(f, c.uniform(0.1, 0.16)), _white(c))


def _priority(c: Canvas) -> None:
    f = _stage(c).moved(angle=np.pi / 4)
    c.paint(f.box(0.0, 0.0, 0.7, 0.7, 0.1), _white(c))
    inner = c.uniform(0.45, 0.52)
    c.paint(np.abs(f.box(0.0, 0.0, 0.66, 0.66, 0.08)) - 0.02, _black(c), c.chance(0.6, 0.8))
    c.paint(f.box(0.0, 0.0, inner, inner), c.tone((1.0, 0.8, 0.0), (0.8, 0.62, 0.2), 0.06))


def _warning(c: Canvas) -> Frame:
    f = _stage(c).moved(0.0, 0.24)
    body = f.regular(3, 0.54, np.pi / 2)
    c.paint(body, _red(c))
    c.paint(body + c.uniform(0.14, 0.2), _white(c))
    return f


def _danger(c: Canvas) -> None:
    f = _warning(c)
    black = _black(c)
    width = c.uniform(0.16, 0.24)
    c.paint(f.path([(0.0, -0.42), (0.0, 0.02)], width), black)
    c.paint(f.circle(0.0, 0.28, width * 0.55), black)


def _lights(c: Canvas) -> None:
    f = _warning(c)
    size = c.uniform(0.12, 0.15)
    for y, web, task in (
        (-0.34, (0.95, 0.1, 0.1), (0.6, 0.12, 0.12)),
        (-0.03, (1.0, 0.75, 0.0), (0.75, 0.55, 0.1)),
        (0.28, (0.0, 0.7, 0.2), (0.1, 0.45, 0.25)),
    ):
        c.paint(f.circle(0.0, y, size), c.tone(web, task, 0.04))


def _parking(c: Canvas) -> None:
    f = _stage(c)
    c.paint(f.box(0.0, 0.0, 0.85, 0.85, 0.12), _white(c), c.chance(0.5, 0.8))
    c.paint(f.box(0.0, 0.0, 0.79, 0.79, 0.1), _blue(c))
    white = _white(c)
    c.paint(f.path([(-0.25, 0.58), (-0.25, -0.5)], c.uniform(0.17, 0.24)), white)
    c.paint(np.abs(f.ellipse(-0.05, -0.22, 0.33, 0.28)) - c.uniform(0.06, 0.09), white)


PAINTERS = {
    "stop": _stop,
    "yield": _yield,
    "no entry": _no_entry,
    "speed limit": _speed_limit,
    "end of restrictions": _end,
    "turn left": _turn_left,
    "turn right": _turn_right,
    "ahead only": _ahead,
    "priority road": _priority,
    "danger": _danger,
    "traffic lights ahead": _lights,
    "parking": _parking,
}
CLASSES = tuple(PAINTERS)


def paint(labels: NDArray[np.int64], rng: np.random.Generator, realism: Array) -> Canvas:
    canvas = paint_classes(labels, rng, realism, tuple(PAINTERS.values()))
    photograph(canvas, blur=1.5, noise=0.06, contrast=0.6, light=0.35)
    return canvas
