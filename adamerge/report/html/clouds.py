"""Where the merged model and the expert put the same images, in the plane."""

from __future__ import annotations

from adamerge.report.html.artifacts import Representations
from adamerge.report.html.markup import Markup, tag
from adamerge.report.html.scale import linear
from adamerge.report.html.svg import BOTTOM, LEFT, RIGHT, TOP, frame, number, picture


def clouds(found: Representations, name: str) -> Markup | None:
    """Crosses for the merged model, rings for the expert: colour is not the only difference. None without points."""
    every = [*found.merged, *found.expert]
    if not every:
        return None
    x = linear([x for x, _ in every], LEFT + 8, RIGHT - 8)
    y = linear([y for _, y in every], BOTTOM - 8, TOP + 8)
    rings = "".join(
        f"M{number(x.at(a) - 3)} {number(y.at(b))}a3 3 0 1 0 6 0a3 3 0 1 0 -6 0" for a, b in found.expert
    )
    crosses = "".join(f"M{number(x.at(a) - 3)} {number(y.at(b) - 3)}l6 6m0 -6l-6 6" for a, b in found.merged)
    return picture(
        f"Scatter chart: representations of {found.task} by {name} and by the expert, {len(every)} points",
        frame(x, y, "first principal direction of the expert's features", "second principal direction"),
        tag("path", d=rings, class_="line c2"),
        tag("path", d=crosses, class_="line c3"),
    )
