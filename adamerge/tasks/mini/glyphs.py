"""Digits as strokes, shared by the tasks that show numbers."""

from __future__ import annotations

import itertools
import math

import numpy as np

from adamerge.tasks.drawing import Array, Canvas, Frame, Number

Points = list[tuple[float, float]]
_SEGMENTS = 14


def _arc(cx: float, cy: float, rx: float, ry: float, start: float, stop: float, steps: int) -> Points:
    angles = [math.radians(start + (stop - start) * i / steps) for i in range(steps + 1)]
    return [(cx + rx * math.cos(a), cy + ry * math.sin(a)) for a in angles]


# Two ways to write each digit, every way a list of strokes within x -0.5 to 0.5 and y -0.8 to 0.8.
_WAYS: list[tuple[list[Points], list[Points]]] = [
    ([_arc(0, 0, 0.48, 0.8, 0, 360, 12)], [_arc(0, 0, 0.42, 0.8, -80, 280, 12)]),
    (
        [[(-0.32, -0.4), (0.05, -0.8), (0.05, 0.8)]],
        [[(-0.25, -0.55), (0.02, -0.8), (0.02, 0.8)], [(-0.3, 0.8), (0.34, 0.8)]],
    ),
    (
        [[*_arc(0, -0.37, 0.45, 0.43, 190, 395, 6), (-0.48, 0.8), (0.5, 0.8)]],
        [[*_arc(0, -0.4, 0.42, 0.4, 200, 410, 6), (-0.2, 0.35), (-0.45, 0.78), (0.0, 0.7), (0.5, 0.8)]],
    ),
    (
        [_arc(-0.03, -0.4, 0.42, 0.4, 205, 450, 6), _arc(-0.03, 0.39, 0.48, 0.41, -90, 155, 6)],
        [[(-0.4, -0.8), (0.42, -0.8), (-0.05, -0.15), *_arc(-0.03, 0.35, 0.48, 0.45, -70, 150, 6)]],
    ),
    (
        [[(0.2, 0.8), (0.2, -0.8), (-0.5, 0.35), (0.52, 0.35)]],
        [[(-0.28, -0.8), (-0.45, 0.15), (0.5, 0.15)], [(0.22, -0.35), (0.15, 0.8)]],
    ),
    (
        [[(0.42, -0.8), (-0.32, -0.8), (-0.38, -0.06), *_arc(-0.02, 0.29, 0.48, 0.5, 225, 510, 7)]],
        [
            [
                (0.4, -0.75),
                (-0.25, -0.8),
                (-0.3, -0.15),
                (0.1, -0.2),
                (0.42, 0.2),
                (0.3, 0.65),
                (-0.1, 0.8),
                (-0.42, 0.65),
            ]
        ],
    ),
    (
        [_arc(0, 0.33, 0.45, 0.46, 0, 360, 9), [(-0.44, 0.3), (-0.36, -0.25), (-0.08, -0.62), (0.3, -0.8)]],
        [_arc(0, 0.4, 0.38, 0.4, 0, 360, 9), [(-0.38, 0.4), (-0.3, -0.2), (-0.05, -0.8)]],
    ),
    (
        [[(-0.48, -0.8), (0.48, -0.8), (-0.12, 0.8)]],
        [[(-0.45, -0.75), (0.45, -0.8), (0.0, 0.1), (-0.1, 0.8)], [(-0.25, 0.02), (0.35, -0.02)]],
    ),
    (
        [_arc(0, -0.42, 0.38, 0.38, 90, 450, 7), _arc(0, 0.38, 0.46, 0.42, -90, 270, 7)],
        [_arc(0.05, -0.42, 0.34, 0.36, 90, 450, 7), _arc(-0.03, 0.38, 0.4, 0.42, -90, 270, 7)],
    ),
    (
        [_arc(0, -0.33, 0.45, 0.46, 0, 360, 9), [(0.44, -0.3), (0.36, 0.25), (0.08, 0.62), (-0.3, 0.8)]],
        [_arc(0, -0.4, 0.38, 0.4, 0, 360, 9), [(0.38, -0.4), (0.33, 0.2), (0.2, 0.8)]],
    ),
]


def _table() -> Array:
    """(10, 2, _SEGMENTS, 4): the ends of every segment, the last one repeated to fill up."""
    table = np.zeros((10, 2, _SEGMENTS, 4), np.float32)
    for digit, ways in enumerate(_WAYS):
        for way, strokes in enumerate(ways):
            ends = [(*a, *b) for points in strokes for a, b in itertools.pairwise(points)]
            table[digit, way] = [ends[min(i, len(ends) - 1)] for i in range(_SEGMENTS)]
    return table


_TABLE = _table()


def digit_strokes(
    canvas: Canvas, frame: Frame, digits: np.ndarray, width: Number, second_way: Array, shake: Number = 0.0
) -> Array:
    """Distance (n, S, S) to one digit per picture.

    Args:
        digits: (n,) integers 0 to 9.
        second_way: (n, 1, 1) of 0 and 1, which of the two ways of writing.
        shake: how far the corners stray, a smooth displacement of the whole digit.
    """
    ends = _TABLE[digits, second_way.reshape(-1).astype(int)]
    # A smooth displacement moves joined ends together.
    phase = canvas.rng.random((4, canvas.n, 1, 1), np.float32) * np.float32(2 * np.pi)
    x, y = ends[..., 0::2], ends[..., 1::2]
    amount = np.asarray(shake, np.float32)
    moved_x = x + amount * (np.sin(2.1 * y + phase[0]) + 0.6 * np.sin(3.7 * x + phase[1]))
    moved_y = y + amount * (np.sin(2.3 * x + phase[2]) + 0.6 * np.sin(3.1 * y + phase[3]))
    columns = [
        tuple(
            part[:, i, None, None]
            for part in (moved_x[..., 0], moved_y[..., 0], moved_x[..., 1], moved_y[..., 1])
        )
        for i in range(_SEGMENTS)
    ]
    return frame.segments(columns, width)
