"""Loss, or what is evaluated, over the steps, one chart per objective: only losses of the same kind share an axis."""

from __future__ import annotations

from adamerge.report.html.artifacts import Curve
from adamerge.report.html.markup import Markup, tag
from adamerge.report.html.scale import linear
from adamerge.report.html.svg import BOTTOM, LEFT, RIGHT, TOP, frame, number, picture
from adamerge.report.html.view import View


def curves(view: View, series: dict[int, Curve], label: str, low: float | None = 0.0) -> Markup:
    """`series` by the group's position; those that are not picked stay grey. The axis begins at `low` or below."""
    x = linear([at for curve in series.values() for at, _ in curve], LEFT, RIGHT)
    y = linear([value for curve in series.values() for _, value in curve], BOTTOM, TOP, low=low)
    lines = []
    for index, curve in sorted(series.items(), key=lambda item: item[0] in view.picked):
        places = "L".join(f"{number(x.at(at))} {number(y.at(value))}" for at, value in curve)
        # A single step has no length; a round cap still draws it as a dot.
        path = f"M{places}" if len(curve) > 1 else f"M{places}h.01"
        title = tag("title", view.groups[index].name)
        lines.append(tag("path", title, d=path, class_=view.classes(index, "mark line"), data_m=index))
    words = f"Line chart: {label} over the steps, {len(series)} methods"
    return picture(words, frame(x, y, "step", label), *lines)
