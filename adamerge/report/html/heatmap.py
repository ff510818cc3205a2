"""Merging coefficients as a map, layers x tasks."""

from __future__ import annotations

from itertools import groupby, pairwise

from adamerge.report.depth import block
from adamerge.report.html.artifacts import Coefficients
from adamerge.report.html.colors import BINS, BLUE_RED, VIRIDIS, ink, ramp
from adamerge.report.html.markup import Markup, tag
from adamerge.report.html.svg import number, picture, text

_LEFT, _RIGHT, _TOP = 70.0, 396.0, 8.0
_FOOT = 84.0  # for the tasks' names
_MOST = 330.0  # height of the map
_WRITTEN = 12  # up to so many rows the values are written into the cells


def heatmap(table: Coefficients, name: str) -> Markup:
    """The picture; its scale is its own, with zero at the end or in the middle."""
    low, high, colors = _scale(table)
    rows, columns = len(table.layers), len(table.tasks)
    tall = min(34.0, _MOST / rows)
    wide = (_RIGHT - _LEFT) / columns
    bottom = _TOP + rows * tall
    bins = [[round((v - low) / (high - low) * (BINS - 1)) for v in row] for row in table.values]
    cells = [
        tag("path", d="".join(_stripes(bins, index)), stroke=colors[index])
        for index in sorted({b for row in bins for b in row})
    ]
    # A stripe runs along the middle of its row.
    place = f"translate({_LEFT:g} {number(_TOP + tall / 2)}) scale({wide:.3f} {tall:.3f})"
    parts = [tag("g", *cells, transform=place, shape_rendering="crispEdges")]
    if rows <= _WRITTEN and columns <= 10:
        parts += _numbers(table, bins, colors, wide, tall)
    parts += [*_blocks(table, tall), *_tasks(table, wide, bottom), _legend(low, high, colors, bottom)]
    words = (
        f"Heat map: merging coefficients of {name}, {rows} layers by {columns} tasks, {low:.2f} to {high:.2f}"
    )
    return picture(words, *parts, height=max(bottom, _TOP + 90) + _FOOT)


def _scale(table: Coefficients) -> tuple[float, float, list[str]]:
    least = min(v for row in table.values for v in row)
    reach = max(abs(v) for row in table.values for v in row) or 1.0
    return (-reach, reach, ramp(BLUE_RED)) if least < 0 else (0.0, reach, ramp(VIRIDIS))


def _stripes(bins: list[list[int]], index: int) -> list[str]:
    """Strokes over equal neighbours of a row: an eighth of the text that a rectangle per cell would be."""
    found = []
    for y, row in enumerate(bins):
        x = 0
        for value, cells in groupby(row):
            length = len(list(cells))
            if value == index:
                found.append(f"M{x} {y}h{length}")
            x += length
    return found


def _numbers(
    table: Coefficients, bins: list[list[int]], colors: list[str], wide: float, tall: float
) -> list[Markup]:
    return [
        tag(
            "text",
            f"{value:.2f}",
            x=number(_LEFT + (x + 0.5) * wide),
            y=number(_TOP + (y + 0.5) * tall + 4),
            text_anchor="middle",
            class_="inside",
            style=f"fill:{ink(colors[bins[y][x]])}",
        )
        for y, row in enumerate(table.values)
        for x, value in enumerate(row)
    ]


def edges(layers: list[str]) -> list[int]:
    """Where a block begins, and the end."""
    starts = [i for i, name in enumerate(layers) if i and block(name) != block(layers[i - 1])]
    return [0, *starts, len(layers)]


def block_name(layers: list[str], row: int) -> str:
    return "all layers" if layers == ["all"] else block(layers[row])


def _blocks(table: Coefficients, tall: float) -> list[Markup]:
    parts = []
    every = -(-len(edges(table.layers)) // 26)  # names would overlap in deep encoders
    for i, (a, b) in enumerate(pairwise(edges(table.layers))):
        if i % every == 0:
            parts.append(
                text(block_name(table.layers, a), _LEFT - 6, _TOP + (a + b) / 2 * tall + 4, "end", "small")
            )
        if a:
            parts.append(tag("path", d=f"M{_LEFT:g} {number(_TOP + a * tall)}H{_RIGHT:g}", class_="parting"))
    return parts


def _tasks(table: Coefficients, wide: float, bottom: float) -> list[Markup]:
    return [
        tag(
            "text",
            task if len(task) < 18 else f"{task[:16]}…",
            class_="small",
            text_anchor="end",
            transform=f"translate({number(_LEFT + (i + 0.5) * wide + 4)} {number(bottom + 14)}) rotate(-38)",
        )
        for i, task in enumerate(table.tasks)
    ]


def _legend(low: float, high: float, colors: list[str], bottom: float) -> Markup:
    """The scale at the right, high values above."""
    length = max(bottom - _TOP, 90.0)
    step = length / len(colors)
    x = _RIGHT + 22
    parts = [
        tag(
            "path",
            d=f"M{x:g} {number(_TOP + (len(colors) - 1 - i) * step)}h12v{number(step + 0.4)}h-12z",
            fill=c,
        )
        for i, c in enumerate(colors)
    ]
    for share in (0.0, 0.5, 1.0):
        value = low + share * (high - low)
        parts.append(text(f"{value:.2f}", x + 17, _TOP + (1 - share) * (length - 10) + 9, "start", "small"))
    middle = _TOP + length / 2
    parts.append(
        tag(
            "text",
            "merging coefficient",
            class_="small",
            text_anchor="middle",
            transform=f"translate({x + 48:g} {number(middle)}) rotate(90)",
        )
    )
    return tag("g", *parts)
