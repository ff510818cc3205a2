"""Landscapes seen from the ground: postcard illustrations on the web, hazy and tilted views in the task."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adamerge.tasks.drawing import Array, Canvas, Frame, paint_classes, photograph


def _sky(c: Canvas, low: float = -0.2, high: float = 0.3) -> tuple[Frame, Array]:
    """Sky over the whole picture; the (tilted) frame and the height of the horizon in it."""
    middle = (low + high) / 2
    horizon = c.mix(middle, middle) + c.wobble((high - low) / 4, (high - low) / 2)
    top = c.tone((0.3, 0.6, 0.95), (0.5, 0.58, 0.68), 0.12)
    bottom = c.tone((0.7, 0.88, 1.0), (0.75, 0.75, 0.74), 0.1)
    c.pixels = top + np.clip((c.y + 1) / (horizon + 1.01), 0, 1)[:, None] * (bottom - top)
    c.blend(
        np.clip(c.clouds(3, 2) * 1.2 - c.wobble(0.2, 0.6), 0, 1) * c.mix(0.6, 0.5),
        c.tone((1.0, 1.0, 1.0), (0.85, 0.85, 0.86)),
    )
    sun = c.circle(c.uniform(-0.8, 0.8), c.uniform(-0.9, -0.5), c.uniform(0.1, 0.2))
    c.paint(sun, c.tone((1.0, 0.9, 0.3), (0.95, 0.9, 0.8)), c.chance(0.5, 0.15))
    return c.moved(c.wobble(0.0, 0.4), 0.0, c.wobble(0.0, 0.12)), horizon


def _mirror(c: Canvas, f: Frame) -> Frame:
    return Frame(f.x * (1 - 2 * c.chance(0.5)), f.y, f.scale)


def _beach(c: Canvas) -> None:
    f, horizon = _sky(c)
    f = _mirror(c, f)
    c.paint(horizon - f.y, c.tone((0.05, 0.55, 0.8), (0.28, 0.42, 0.48), 0.06))
    c.shade(np.sin(f.y * 40) * (f.y > horizon), c.mix(0.03, 0.03))
    shore = f.y - horizon - c.uniform(0.15, 0.45) - c.uniform(0.1, 0.5) * f.x - 0.04 * c.clouds(4)
    shore = np.minimum(shore, f.y - horizon - 0.05)
    c.paint(-shore, c.tone((1.0, 0.88, 0.6), (0.68, 0.6, 0.49), 0.06))
    c.paint(np.abs(shore) - 0.05, c.tone((1.0, 1.0, 1.0), (0.85, 0.87, 0.87)), c.mix(1.0, 0.8))
    parasol = f.moved(c.uniform(0.2, 0.7), c.uniform(0.3, 0.6), scale=c.uniform(0.6, 1.0))
    present = c.chance(0.5, 0.25)
    c.paint(parasol.box(0.0, 0.2, 0.03, 0.25), c.tone((0.5, 0.4, 0.3), (0.4, 0.35, 0.3)), present)
    c.paint(
        np.maximum(parasol.circle(0.0, 0.05, 0.3), parasol.y * parasol.scale),
        c.colour(0.6, 1.0, 0.9),
        present,
    )


def _ridge(
    c: Canvas, f: Frame, base: Array, peaks: int, height: tuple[float, float], rough: float
) -> tuple[Array, Array]:
    """Distance below a mountain line of triangular peaks, and the side of the slope (-1 or 1)."""
    line = np.full((c.n, 32, 32), -9.0, np.float32)
    side = np.ones_like(line)
    for index in range(peaks):
        x = f.x - c.uniform(-0.9 + 1.8 * index / peaks, -0.9 + 1.8 * (index + 1) / peaks)
        peak = c.uniform(*height) - np.abs(x) * c.uniform(0.8, 1.3)
        side = np.where(peak > line, np.sign(x), side)
        line = np.maximum(line, peak)
    line = line + c.mix(rough / 3, rough) * c.clouds(6, 2)
    return base - line - f.y, side


def _mountain(c: Canvas) -> None:
    f, horizon = _sky(c, 0.3, 0.6)
    far, _ = _ridge(c, f, horizon, 3, (0.3, 0.7), 0.05)
    c.paint(far, c.tone((0.6, 0.68, 0.85), (0.55, 0.58, 0.65)), c.chance(0.4, 0.7))
    below, side = _ridge(c, f, horizon, 2, (0.8, 1.25), 0.08)
    c.paint(below, c.tone((0.45, 0.45, 0.5), (0.38, 0.37, 0.37), 0.06))
    snow = np.maximum(
        below, below + c.uniform(0.2, 0.45) + f.y - horizon + c.uniform(0.3, 0.6) + 0.1 * c.clouds(8)
    )
    c.paint(snow, c.tone((1.0, 1.0, 1.0), (0.82, 0.84, 0.88)), c.chance(1.0, 0.75))
    c.shade(side * (below < 0), c.wobble(0.1, 0.13))
    c.paint(horizon - 0.05 - f.y + 0.08 * c.clouds(5, 2), c.tone((0.3, 0.6, 0.3), (0.23, 0.29, 0.22), 0.06))


def _woodland(c: Canvas) -> None:
    f, horizon = _sky(c, 0.2, 0.6)
    leaves = c.tone((0.25, 0.65, 0.2), (0.25, 0.33, 0.17), 0.08)
    c.blend(np.clip(c.clouds(5, 2) * 1.2 + c.mix(0.6, 0.45) - np.clip(f.y, 0, 1) * 0.3, 0, 1), leaves)
    c.shade(c.clouds(10), c.mix(0.06, 0.1))
    c.paint(horizon - f.y, c.tone((0.5, 0.6, 0.25), (0.34, 0.31, 0.2), 0.06))
    bark = c.tone((0.45, 0.28, 0.15), (0.25, 0.21, 0.17), 0.06)
    for index in range(5):
        width = c.uniform(0.04, 0.13)
        x = c.uniform(-1.0 + 0.4 * index, -0.6 + 0.4 * index)
        lean = c.wobble(0.03, 0.12)
        trunk = np.maximum(np.abs(f.x - x - lean * f.y) - width, f.y - horizon - width * 3)
        c.paint(trunk, bark * c.uniform(0.7, 1.3)[:, None], c.chance(1.0, 0.85))
    crown = np.clip((c.clouds(7, 2) * 0.7 - f.y - c.uniform(0.1, 0.5)) * 4, 0, 1)
    c.blend(crown, leaves * c.uniform(0.7, 1.2)[:, None])


def _perspective(f: Frame, horizon: Array, vanish: Array) -> tuple[Array, Array]:
    """Ground coordinates: sideways position and depth below the horizon."""
    below = np.maximum(f.y - horizon, 0.02)
    return (f.x - vanish) / below, 1 / below


def _street(c: Canvas) -> None:
    f, horizon = _sky(c, -0.2, 0.2)
    vanish = c.wobble(0.05, 0.3)
    away = np.abs(f.x - vanish)
    for side in (-1, 1):
        wall = c.colour(c.mix(0.6, 0.3), c.mix(0.95, 0.8), c.mix(0.6, 0.35))
        steep = c.uniform(0.9, 1.6)
        facing = (f.x - vanish) * side
        front = np.maximum(
            horizon - facing * steep - f.y - 0.02, np.maximum(0.18 - facing, f.y - horizon - facing * 0.8)
        )
        c.paint(front, wall)
        # Windows recede with the wall.
        bands = np.sin((f.y - horizon) / np.maximum(facing, 0.1) * c.uniform(9, 13)) * np.sin(
            3.0 / np.maximum(facing, 0.1) * c.uniform(1.5, 2.5)
        )
        c.shade((front < -0.02) * np.clip(bands * 3, -1, 0.3), c.mix(0.16, 0.12))
    across, depth = _perspective(f, horizon, vanish)
    ground = horizon + 0.02 - f.y
    c.paint(
        np.maximum(ground, away - 0.1 - np.maximum(f.y - horizon, 0) * 1.6),
        c.tone((0.75, 0.72, 0.68), (0.5, 0.49, 0.47)),
    )
    c.paint(
        np.maximum(ground, away - 0.05 - np.maximum(f.y - horizon, 0)),
        c.tone((0.4, 0.4, 0.43), (0.33, 0.33, 0.34), 0.06),
    )
    dash = (
        (np.abs(across) < 0.09)
        & (np.sin(depth * c.uniform(3, 5) + c.uniform(0, 6.3)) > -0.2)
        & (f.y > horizon + 0.1)
    )
    c.blend(dash * c.chance(0.9, 0.6), c.tone((1.0, 1.0, 1.0), (0.75, 0.75, 0.72)))
    car = f.moved(vanish + c.uniform(-0.35, 0.35), horizon + c.uniform(0.15, 0.5))
    c.paint(car.box(0.0, 0.0, 0.13, 0.09, 0.03), c.colour(0.1, 0.9, 0.8), c.chance(0.2, 0.6))


def _desert(c: Canvas) -> None:
    f, horizon = _sky(c, -0.2, 0.2)
    warm = c.tone((0.98, 0.75, 0.35), (0.7, 0.55, 0.4), 0.06)
    for index in range(3):
        phase, rate = c.uniform(0, 6.3), c.uniform(1.5, 3.5)
        line = horizon + 0.3 * index + c.uniform(0.08, 0.2) * np.sin(f.x * rate + phase)
        c.paint(line - f.y, warm * c.uniform(0.8, 1.15)[:, None])
        lee = np.cos(f.x * rate + phase) > 0
        c.shade(lee * (f.y > line), c.uniform(-0.2, -0.05))
    ripples = np.sin((f.y * 3 + f.x * c.uniform(-1, 1) + 0.2 * c.clouds(3)) * c.uniform(6, 10))
    c.shade(ripples * (f.y > horizon + 0.2), c.mix(0.02, 0.04))
    green = c.tone((0.2, 0.6, 0.25), (0.25, 0.32, 0.2))
    cactus = f.moved(c.uniform(-0.7, 0.7), horizon + c.uniform(0.1, 0.4), scale=c.uniform(0.6, 1.0))
    arms = [
        (0.0, 0.3, 0.0, -0.5),
        (0.0, 0.0, 0.25, 0.0),
        (0.25, 0.0, 0.25, -0.25),
        (0.0, 0.1, -0.22, 0.1),
        (-0.22, 0.1, -0.22, -0.15),
    ]
    c.paint(cactus.segments(arms, 0.11), green, c.chance(0.6, 0.15))


def _snow_field(c: Canvas) -> None:
    f, horizon = _sky(c, -0.2, 0.3)
    hills = (
        horizon
        - f.y
        + 0.15 * np.sin(f.x * c.uniform(1, 3) + c.uniform(0, 6.3))
        + c.mix(0.0, 0.05) * c.clouds(4)
    )
    c.paint(hills + 0.15, c.tone((0.8, 0.88, 1.0), (0.65, 0.69, 0.75)), c.chance(0.4, 0.6))
    c.paint(hills, c.tone((0.97, 0.99, 1.0), (0.83, 0.85, 0.88), 0.04))
    c.shade(c.clouds(4, 2) * (hills < 0), c.mix(0.02, 0.05))
    green = c.tone((0.15, 0.45, 0.35), (0.2, 0.25, 0.24), 0.04)
    for _ in range(4):
        size = c.uniform(0.25, 0.55)
        tree = f.moved(c.uniform(-1, 1), horizon + c.uniform(-0.05, 0.35), scale=size)
        present = c.chance(0.75, 0.55)
        cone = np.minimum(
            tree.convex([(0.0, -1.1), (0.35, -0.35), (-0.35, -0.35)]),
            tree.convex([(0.0, -0.75), (0.5, 0.1), (-0.5, 0.1)]),
        )
        c.paint(cone, green, present)
        c.paint(
            tree.convex([(0.0, -1.15), (0.2, -0.75), (-0.2, -0.75)]),
            c.tone((1.0, 1.0, 1.0), (0.85, 0.87, 0.9)),
            present * c.chance(0.8, 0.6),
        )


def _skyline(c: Canvas) -> None:
    f, horizon = _sky(c, 0.3, 0.7)
    for layer in range(2):
        rate = c.uniform(2.0, 3.6)
        column = np.floor(f.x * rate + 0.37 * layer)
        x = f.x * rate + 0.37 * layer - column - 0.5
        height = c.per_cell(column, column * 0) ** 1.5 * c.uniform(0.6, 1.2) + 0.15
        roof = horizon - height - f.y
        shade = 0.75 + 0.5 * c.per_cell(column, column * 0)
        wall = c.tone((0.45, 0.5, 0.65), (0.4, 0.42, 0.47), 0.08) * (1.25 - 0.3 * layer)
        cover = np.clip(0.5 - np.maximum(roof, (np.abs(x) - 0.47) / rate) * 16, 0, 1)
        c.blend(cover, wall * shade[:, None])
        lit = (
            (np.sin(f.y * c.uniform(28, 40)) > 0.2) & (np.abs(x) < 0.36) & (np.sin(x * c.uniform(14, 22)) > 0)
        )
        c.blend(lit * cover * c.mix(0.9, 0.45), c.tone((1.0, 0.95, 0.6), (0.68, 0.67, 0.62), 0.1))
    water = c.chance(0.3, 0.5)[:, None]
    ground = c.tone((0.3, 0.6, 0.35), (0.3, 0.31, 0.27)) * (1 - water) + water * c.tone(
        (0.2, 0.5, 0.8), (0.3, 0.36, 0.41)
    )
    c.paint(horizon - f.y, ground)


def _meadow(c: Canvas) -> None:
    f, horizon = _sky(c, -0.25, 0.25)
    hills = horizon - f.y + 0.12 * np.sin(f.x * c.uniform(1, 3) + c.uniform(0, 6.3))
    c.paint(
        hills + 0.0 - c.uniform(0.05, 0.25), c.tone((0.4, 0.65, 0.4), (0.36, 0.42, 0.35)), c.chance(0.4, 0.7)
    )
    c.paint(hills, c.tone((0.45, 0.8, 0.25), (0.41, 0.46, 0.24), 0.07))
    c.shade((c.clouds(4, 2) + 0.5 * c.grain()) * (hills < 0), c.mix(0.03, 0.07))
    rate = c.uniform(3, 5)
    column, row = np.floor(f.x * rate), np.floor(f.y * rate)
    x, y = f.x * rate - column - 0.3 - 0.4 * c.per_cell(column, row), f.y * rate - row - 0.5
    flower = (c.per_cell(column, row) < c.uniform(0.2, 0.8)) & (hills < -0.1)
    c.blend(
        np.clip((0.28 - np.sqrt(x * x + y * y)) * 5, 0, 1) * flower * c.mix(1.0, 0.7),
        c.colour(0.7, 1.0, c.mix(1.0, 0.5)),
    )


def _waterfall(c: Canvas) -> None:
    f, horizon = _sky(c, -0.7, -0.3)
    rock = c.tone((0.5, 0.45, 0.4), (0.33, 0.31, 0.28), 0.06)
    c.paint(horizon - f.y + 0.12 * c.clouds(4, 2), rock)
    c.shade(c.clouds(6, 2) * (f.y > horizon), c.mix(0.06, 0.13))
    moss = np.clip(c.clouds(5, 2) * 1.5 - 0.2, 0, 1) * (f.y > horizon - 0.1)
    c.blend(moss * c.mix(0.6, 0.7), c.tone((0.25, 0.6, 0.25), (0.22, 0.29, 0.16), 0.05))
    centre, width = c.wobble(0.1, 0.4), c.uniform(0.14, c.mix(0.3, 0.4))
    pool = c.uniform(0.45, 0.75)
    wide = width * (1 + 0.25 * (f.y - horizon))
    fall = np.maximum(
        np.abs(f.x - centre + 0.05 * c.clouds(3)) - wide, np.maximum(horizon - f.y, f.y - pool - 0.05)
    )
    c.paint(pool - f.y + 0.05 * c.clouds(4), c.tone((0.2, 0.6, 0.8), (0.28, 0.37, 0.38), 0.06))
    c.paint(fall, c.tone((0.92, 0.97, 1.0), (0.78, 0.8, 0.81), 0.04))
    c.shade(np.sin(f.x * c.uniform(30, 50) + 2 * c.clouds(2)) * (fall < 0), c.mix(0.06, 0.07))
    spray = np.clip(1 - f.ellipse(centre, pool, width * 1.6, 0.2) * 5, 0, 1) * 0.6
    c.blend(np.clip(spray, 0, 1) * c.mix(0.8, 0.7), c.tone((1.0, 1.0, 1.0), (0.82, 0.84, 0.85)))


def _railway(c: Canvas) -> None:
    f, horizon = _sky(c, -0.3, 0.1)
    vanish = c.wobble(0.05, 0.35)
    trees = horizon - f.y - c.uniform(0.05, 0.3) + 0.1 * c.clouds(6, 2)
    c.paint(trees, c.tone((0.3, 0.6, 0.3), (0.25, 0.31, 0.23), 0.06), c.chance(0.6, 0.8))
    c.paint(horizon - f.y, c.tone((0.5, 0.75, 0.35), (0.4, 0.42, 0.28), 0.06))
    across, depth = _perspective(f, horizon, vanish)
    ground = f.y > horizon
    gauge = c.uniform(0.4, 0.55)
    c.blend((np.abs(across) < gauge * 1.8) * ground, c.tone((0.75, 0.7, 0.65), (0.47, 0.44, 0.41), 0.06))
    tie = (
        (np.sin(depth * c.uniform(8, 12) + c.uniform(0, 6.3)) > 0)
        & (np.abs(across) < gauge * 1.35)
        & (f.y > horizon + 0.12)
    )
    c.blend(tie * c.mix(1.0, 0.8), c.tone((0.45, 0.28, 0.15), (0.27, 0.24, 0.22), 0.04))
    below = np.maximum(f.y - horizon, 0.02)
    rails = np.abs(np.abs(f.x - vanish) - gauge * below) - 0.02 - 0.04 * below
    c.paint(np.maximum(rails, horizon - f.y), c.tone((0.3, 0.3, 0.35), (0.6, 0.6, 0.62), 0.12))


PAINTERS = {
    "beach": _beach,
    "mountain": _mountain,
    "woodland": _woodland,
    "street": _street,
    "desert": _desert,
    "snow field": _snow_field,
    "city skyline": _skyline,
    "meadow": _meadow,
    "waterfall": _waterfall,
    "railway": _railway,
}
CLASSES = tuple(PAINTERS)


def paint(labels: NDArray[np.int64], rng: np.random.Generator, realism: Array) -> Canvas:
    canvas = paint_classes(labels, rng, realism, tuple(PAINTERS.values()))
    photograph(canvas, blur=1.0, noise=0.06, contrast=0.5, light=0.25)
    return canvas
