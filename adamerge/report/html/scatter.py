"""A point per method: what it costs, or how far it agrees with the experts, against how good it is."""

from __future__ import annotations

from dataclasses import dataclass

from adamerge.report.collect import Spread
from adamerge.report.html.markup import Markup, tag
from adamerge.report.html.scale import Scale, label, linear, logarithmic
from adamerge.report.html.svg import BOTTOM, LEFT, RIGHT, TOP, frame, number, picture, text
from adamerge.report.html.view import View

_INSET = 10.0  # keeps points off the frame
_NAME = 26  # characters of a name beside its point
_WIDE = 20.0  # from this ratio of greatest to least on, the axis is logarithmic


@dataclass(frozen=True)
class Point:
    """A group's place: `x` is plain, `y` a share."""

    index: int
    name: str
    x: float
    y: Spread


def scatter(view: View, points: list[Point], x_label: str, y_label: str, log: bool | None = None) -> Markup:
    """The chart; `log` of None decides by the range of the values."""
    xs = [point.x for point in points]
    ys = [100 * (point.y.mean or 0.0) for point in points]
    positive = [x for x in xs if x > 0]
    wide = len(positive) > 1 and max(positive) / min(positive) >= _WIDE
    chosen = wide if log is None else log
    x = (logarithmic if chosen else linear)(xs, LEFT + _INSET, RIGHT - _INSET)
    y = linear(ys, BOTTOM - _INSET, TOP + _INSET)
    # Picked points come last, so that they lie above the others.
    ordered = sorted(points, key=lambda point: point.index in view.picked)
    named = f"{x_label}, logarithmic" if chosen else x_label
    words = f"Scatter chart: {y_label} against {named}, {len(points)} methods; the tables have the numbers"
    return picture(words, frame(x, y, named, y_label), *(_point(view, p, x, y) for p in ordered))


def _point(view: View, point: Point, x: Scale, y: Scale) -> Markup:
    mean = 100 * (point.y.mean or 0.0)
    at, height = x.at(point.x), y.at(mean)
    left = at > (LEFT + RIGHT) / 2
    parts = [tag("title", f"{point.name}: {mean:.1f} at {label(round(point.x, 3))}")]
    if point.y.sd:
        top, bottom = y.at(mean + 100 * point.y.sd), y.at(mean - 100 * point.y.sd)
        parts.append(tag("path", d=f"M{number(at)} {number(top)}V{number(bottom)}", class_="whisker"))
    parts.append(tag("circle", cx=number(at), cy=number(height), r=5))
    short = point.name if len(point.name) <= _NAME else f"{point.name[: _NAME - 1]}…"
    parts.append(text(short, at + (-9 if left else 9), height + 4, "end" if left else "start", kind="beside"))
    return tag("g", *parts, class_=view.classes(point.index, "mark point"), data_m=point.index)
