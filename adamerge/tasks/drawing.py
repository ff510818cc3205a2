"""Drawing many small pictures at once: signed distance functions on a pixel grid, float32 numpy.

A distance is negative inside a shape, in screen units (the picture spans -1 to 1, x right, y down); painted
with an edge of one pixel it is anti-aliased. Numbers may be floats or arrays (n, 1, 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIZE = 32
# float32 throughout, or bool where it covers.
Array = NDArray[Any]
Number = float | Array
Rgb = tuple[float, float, float]


@lru_cache(maxsize=1)
def _grid() -> tuple[Array, Array]:
    centres = ((np.arange(SIZE) + 0.5) * (2 / SIZE) - 1).astype(np.float32)
    y, x = np.meshgrid(centres, centres, indexing="ij")
    return x[None], y[None]


@lru_cache(maxsize=32)
def _interpolation(cells: int) -> Array:
    """Weights (SIZE, cells + 1) that smoothly interpolate values at cells + 1 nodes."""
    at = (np.arange(SIZE) + 0.5) / SIZE * cells
    left = np.minimum(at.astype(int), cells - 1)
    part = at - left
    part = part * part * (3 - 2 * part)
    weights = np.zeros((SIZE, cells + 1), np.float32)
    weights[np.arange(SIZE), left] = 1 - part
    weights[np.arange(SIZE), left + 1] = part
    return weights


class Frame:
    """A coordinate system for each picture, placed on the screen; its shapes return distances (n, S, S)."""

    def __init__(self, x: Array, y: Array, scale: Number = 1.0) -> None:
        self.x = x
        self.y = y
        self.scale = scale

    def moved(
        self,
        dx: Number = 0.0,
        dy: Number = 0.0,
        angle: Number = 0.0,
        scale: Number = 1.0,
        stretch: Number = 1.0,
    ) -> Frame:
        """Origin at (dx, dy), turned by `angle` (radians), `scale` as large, x `stretch` as wide."""
        cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
        x, y = self.x - dx, self.y - dy
        return Frame((cos * x + sin * y) / stretch, cos * y - sin * x, self.scale * scale)

    def tilted(self, px: Number, py: Number) -> Frame:
        """A perspective view: what lies towards (px, py) is farther away."""
        depth = 1 / (1 - px * self.x - py * self.y)
        return Frame(self.x * depth, self.y * depth, self.scale)

    def circle(self, cx: Number, cy: Number, radius: Number) -> Array:
        x, y = self.x - cx, self.y - cy
        return (np.sqrt(x * x + y * y) - radius) * self.scale

    def ellipse(self, cx: Number, cy: Number, rx: Number, ry: Number) -> Array:
        """Nearly a distance: exact on the edge, where it counts."""
        x, y = (self.x - cx) / rx, (self.y - cy) / ry
        return (np.sqrt(x * x + y * y) - 1) * (np.minimum(rx, ry) * self.scale)

    def box(self, cx: Number, cy: Number, hx: Number, hy: Number, corner: Number = 0.0) -> Array:
        """A rectangle of half sizes hx and hy, corners rounded by the radius `corner`."""
        x, y = np.abs(self.x - cx) - (hx - corner), np.abs(self.y - cy) - (hy - corner)
        if not isinstance(corner, float) or corner > 0:
            outside = np.sqrt(np.maximum(x, 0) ** 2 + np.maximum(y, 0) ** 2) + np.minimum(np.maximum(x, y), 0)
            return (outside - corner) * self.scale
        return np.maximum(x, y) * self.scale

    def segments(self, ends: Sequence[Sequence[Number]], width: Number) -> Array:
        """Strokes of full width `width` from (x0, y0) to (x1, y1) each."""
        nearest: Array | None = None
        for x0, y0, x1, y1 in ends:
            bx, by = x1 - x0, y1 - y0
            x, y = self.x - x0, self.y - y0
            along = np.clip((x * bx + y * by) / (bx * bx + by * by + 1e-9), 0, 1)
            x -= along * bx
            y -= along * by
            squared = x * x + y * y
            nearest = squared if nearest is None else np.minimum(nearest, squared)
        assert nearest is not None
        return (np.sqrt(nearest) - width / 2) * self.scale

    def path(self, points: Sequence[tuple[Number, Number]], width: Number) -> Array:
        """One stroke through all points."""
        return self.segments([(*start, *end) for start, end in pairwise(points)], width)

    def convex(self, points: Sequence[tuple[Number, Number]]) -> Array:
        """A convex polygon, its corners in clockwise order on the screen."""
        inside: Array | None = None
        for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
            length = np.sqrt((x1 - x0) ** 2 + (y1 - y0) ** 2) + 1e-6
            nx, ny = (y1 - y0) / length, (x0 - x1) / length
            plane = self.x * nx + self.y * ny - (nx * x0 + ny * y0)
            inside = plane if inside is None else np.maximum(inside, plane)
        assert inside is not None
        return inside * self.scale

    def regular(self, sides: int, radius: Number, turn: float = 0.0) -> Array:
        """A regular polygon around the origin, given by its inner radius; `turn` in radians."""
        inside: Array | None = None
        for angle in np.arange(sides) * (2 * np.pi / sides) + turn:
            plane = self.x * float(np.cos(angle)) + self.y * float(np.sin(angle))
            inside = plane if inside is None else np.maximum(inside, plane)
        assert inside is not None
        return (inside - radius) * self.scale


class Canvas(Frame):
    """Pictures under the brush: `pixels` (n, 3, S, S) in 0 to 1.

    Args:
        realism: (n,) from 0 (a clean illustration, as on the web) to 1 (as in the tasks); every choice of the
            painters goes from the one style to the other with it.
    """

    def __init__(self, n: int, rng: np.random.Generator, realism: Array) -> None:
        super().__init__(*_grid())
        self.n = n
        self.rng = rng
        self.realism = realism.reshape(n, 1, 1)
        self.pixels = np.zeros((n, 3, SIZE, SIZE), np.float32)

    def uniform(self, low: Number, high: Number) -> Array:
        return low + (high - low) * self.rng.random((self.n, 1, 1), np.float32)

    def mix(self, web: Number, task: Number) -> Array:
        """From `web` at realism 0 to `task` at realism 1."""
        return np.float32(web) + (np.float32(task) - np.float32(web)) * self.realism

    def wobble(self, web: float, task: float) -> Array:
        """Uniform around 0, up to the amplitude `web` at realism 0 and `task` at realism 1."""
        return self.uniform(-1, 1) * self.mix(web, task)

    def chance(self, web: float, task: float | None = None) -> Array:
        """1 or 0 for each picture."""
        share = self.mix(web, web if task is None else task)
        return (self.rng.random((self.n, 1, 1), np.float32) < share).astype(np.float32)

    def tone(self, web: Rgb, task: Rgb, spread: float = 0.06) -> Array:
        """A colour (n, 3, 1, 1) that varies in brightness and, half as much, in hue."""
        between = np.array(web, np.float32)[:, None, None], np.array(task, np.float32)[:, None, None]
        colour = between[0] + (between[1] - between[0]) * self.realism[:, None]
        shared = self.rng.standard_normal((self.n, 1, 1, 1), np.float32)
        own = self.rng.standard_normal((self.n, 3, 1, 1), np.float32)
        return np.clip(colour + spread * shared + spread / 2 * own, 0, 1)

    def colour(self, low: Number = 0.0, high: Number = 1.0, saturation: Number = 0.5) -> Array:
        """Any colour (n, 3, 1, 1) with a brightness from `low` to `high`."""
        value = self.uniform(low, high)[:, None]
        chroma = self.rng.random((self.n, 3, 1, 1), np.float32)
        chroma = chroma - chroma.max(axis=1, keepdims=True)
        spread = np.asarray(saturation, np.float32).reshape(-1, 1, 1, 1)
        return np.clip(value * (1 + spread * 1.4 * chroma), 0, 1)

    def fill(self, colour: Array) -> None:
        self.pixels[:] = colour

    def blend(self, cover: Array, colour: Array) -> None:
        """Lay `colour` over the pictures where `cover` (n, S, S), 0 to 1, says so."""
        self.pixels += cover[:, None] * (colour - self.pixels)

    def paint(self, distance: Array, colour: Array, opacity: Number = 1.0, edge: float = 1.0) -> None:
        """Paint the inside of a shape, with an edge `edge` pixels wide."""
        cover = np.clip(0.5 - distance * (SIZE / 2 / edge), 0, 1)
        self.blend(cover if isinstance(opacity, float) and opacity == 1.0 else cover * opacity, colour)

    def shade(self, field: Array, amount: Number) -> None:
        """Brighten or darken by a field (n, S, S) around 0."""
        self.pixels += (field * amount)[:, None]

    def clouds(self, cells: int, octaves: int = 1) -> Array:
        """A smooth random field (n, S, S), mostly within -1 to 1, with features of 1/cells of the picture."""
        total = np.zeros((self.n, SIZE, SIZE), np.float32)
        for octave in range(octaves):
            count = min(cells * 2**octave, SIZE)
            weights = _interpolation(count)
            nodes = self.rng.random((self.n, count + 1, count + 1), np.float32) * 2 - 1
            total += (weights @ nodes @ weights.T) * np.float32(0.6**octave)
        return total

    def grain(self) -> Array:
        """White noise (n, S, S) of unit variance."""
        return self.rng.standard_normal((self.n, SIZE, SIZE), np.float32)

    def per_cell(self, column: Array, row: Array) -> Array:
        """A random number, 0 to 1, for each cell of a grid with the given integer-valued coordinates."""
        table = self.rng.random((self.n, 256), np.float32)
        index = (column.astype(np.int32) & 15) * 16 + (row.astype(np.int32) & 15)
        index = np.broadcast_to(index, (self.n, SIZE, SIZE)).reshape(self.n, -1)
        return np.take_along_axis(table, index, axis=1).reshape(self.n, SIZE, SIZE)

    def blur(self, sigma: Array) -> None:
        """Gaussian blur, sigma (n, 1, 1) in pixels."""
        steps = np.arange(SIZE, dtype=np.float32)
        apart = -0.5 * (steps[:, None] - steps[None]) ** 2
        kernel = np.exp(apart / np.maximum(sigma, 0.05) ** 2)
        kernel /= kernel.sum(axis=2, keepdims=True)
        self.pixels = kernel[:, None] @ self.pixels @ kernel[:, None].transpose(0, 1, 3, 2)


def voronoi(canvas: Canvas, frame: Frame, points: int) -> tuple[Array, Array, Array]:
    """Distances (n, S, S) to the two nearest of random points, and the nearest one's number."""
    first = np.full((canvas.n, SIZE, SIZE), 9.0, np.float32)
    second = first.copy()
    owner = np.zeros_like(first)
    # Points of a jittered grid: cells of similar size.
    side = int(np.ceil(np.sqrt(points)))
    for row in range(side):
        for column in range(side):
            x = canvas.uniform(2.4 * column / side - 1.2, 2.4 * (column + 1) / side - 1.2)
            y = canvas.uniform(2.4 * row / side - 1.2, 2.4 * (row + 1) / side - 1.2)
            dx, dy = frame.x - x, frame.y - y
            distance = dx * dx + dy * dy
            number = canvas.uniform(0, 1)
            closer = distance < first
            second = np.where(closer, first, np.minimum(second, distance))
            owner = np.where(closer, number, owner)
            first = np.minimum(first, distance)
    return np.sqrt(first), np.sqrt(second), owner


def photograph(
    canvas: Canvas, blur: float = 0.7, noise: float = 0.06, contrast: float = 0.4, light: float = 0.2
) -> None:
    """What a camera adds, in proportion to the realism: blur, uneven light, weak contrast, a cast, noise."""
    canvas.blur(canvas.uniform(0, 1) * canvas.mix(0.0, blur))
    direction = canvas.uniform(0, 2 * np.pi)
    slope = canvas.x * np.cos(direction) + canvas.y * np.sin(direction)
    weak = 1 - canvas.uniform(0, 1) * canvas.mix(0.0, contrast)
    cast = canvas.rng.standard_normal((canvas.n, 3, 1, 1), np.float32) * (0.25 * light)
    gain = weak[:, None] * (1 + cast * canvas.realism[:, None])
    canvas.pixels = (canvas.pixels - 0.5) * gain + 0.5
    canvas.shade(slope * canvas.wobble(0, 1) + canvas.wobble(0, 1), canvas.mix(0.0, light))
    grain = 0.5 * canvas.rng.standard_normal(canvas.pixels.shape, np.float32) + canvas.grain()[:, None]
    canvas.pixels += grain * (canvas.uniform(0.2, 1) * canvas.mix(0.0, noise))[:, None]


Painter = Callable[[Canvas], None]


def paint_classes(
    labels: NDArray[np.int64], rng: np.random.Generator, realism: Array, painters: Sequence[Painter]
) -> Canvas:
    """One canvas of pictures, each drawn by its class's painter."""
    whole = Canvas(len(labels), rng, realism)
    for label, painter in enumerate(painters):
        (chosen,) = np.nonzero(labels == label)
        if len(chosen):
            part = Canvas(len(chosen), rng, realism[chosen])
            painter(part)
            whole.pixels[chosen] = part.pixels
    return whole
