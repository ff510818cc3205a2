"""The tasks as the axes of a star, a polygon per method."""

from __future__ import annotations

from math import cos, pi, sin

from adamerge.report.comparison import is_reference
from adamerge.report.html.markup import Markup, tag
from adamerge.report.html.svg import WIDTH, number, picture, text
from adamerge.report.html.view import View

_HEIGHT, _RADIUS = 400, 150.0
_CENTRE = (WIDTH / 2, 200.0)
_LEAST = 3  # axes


def radar(view: View) -> Markup | None:
    """None with fewer than three tasks."""
    if len(view.tasks) < _LEAST:
        return None
    parts = [_web(len(view.tasks)), *_names(view.tasks)]
    positions = {group.name: index for index, group in enumerate(view.groups)}
    for line in view.lines:
        values = [value.mean for value in line.values[1:]]
        if any(value is None for value in values):
            continue
        shape = _polygon([value or 0.0 for value in values])
        title = tag("title", line.name)
        if line.group is None:
            if is_reference(line.name):
                parts.insert(0, tag("path", title, d=shape, class_="expert"))
        else:
            index = positions[line.name]
            parts.append(tag("path", title, d=shape, class_=view.classes(index, "pick line"), data_m=index))
    words = f"Radar chart: {view.value} of the picked methods on {len(view.tasks)} tasks; the table has the numbers"
    return picture(words, *parts, height=_HEIGHT)


def _place(axis: float, axes: int, share: float) -> tuple[float, float]:
    angle = 2 * pi * axis / axes - pi / 2
    return _CENTRE[0] + _RADIUS * share * cos(angle), _CENTRE[1] + _RADIUS * share * sin(angle)


def _polygon(shares: list[float]) -> str:
    places = [_place(i, len(shares), share) for i, share in enumerate(shares)]
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in places) + "Z"


def _web(axes: int) -> Markup:
    parts = [tag("path", d=_polygon([share] * axes), class_="grid") for share in (0.25, 0.5, 0.75, 1.0)]
    for axis in range(axes):
        x, y = _place(axis, axes, 1.0)
        parts.append(
            tag(
                "path", d=f"M{number(_CENTRE[0])} {number(_CENTRE[1])}L{number(x)} {number(y)}", class_="grid"
            )
        )
    parts += [
        text(f"{share:.0%}", _CENTRE[0] + 4, _CENTRE[1] - _RADIUS * share + 12, "start", "small")
        for share in (0.25, 0.5, 0.75, 1.0)
    ]
    return tag("g", *parts)


def _names(tasks: tuple[str, ...]) -> list[Markup]:
    parts = []
    for axis, task in enumerate(tasks):
        x, y = _place(axis, len(tasks), 1.06)
        anchor = "middle" if abs(x - _CENTRE[0]) < 20 else "start" if x > _CENTRE[0] else "end"
        short = task if len(task) < 15 else f"{task[:13]}…"
        parts.append(text(short, x, y + (10 if y > _CENTRE[1] + 20 else 2), anchor))
    return parts
