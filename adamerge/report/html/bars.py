"""One bar per method: the average with its spread over seeds. Names and numbers are HTML, so that they stay readable
on narrow screens."""

from __future__ import annotations

from adamerge.report.collect import Spread
from adamerge.report.comparison import spread
from adamerge.report.html.markup import Markup, tag
from adamerge.report.html.svg import number
from adamerge.report.html.view import View


def bars(view: View) -> Markup:
    """Groups and what they are compared with, best first."""
    positions = {group.name: index for index, group in enumerate(view.groups)}
    known = [(line, line.values[0]) for line in view.lines if line.values[0].mean is not None]
    rows = []
    for line, average in sorted(known, key=lambda pair: -(pair[1].mean or 0.0)):
        index = positions[line.name] if line.group else None
        rows.append(
            tag(
                "li",
                tag("span", line.name, class_="name", title=line.name),
                _bar(average),
                tag("span", spread(average), class_="value"),
                class_="mark base" if index is None else view.classes(index, "mark"),
                data_m=index,
            )
        )
    scale = tag("span", *(tag("span", str(value)) for value in (0, 25, 50, 75, 100)), class_="scale")
    foot = tag("div", tag("span"), scale, tag("span", "%"), class_="foot", aria_hidden="true")
    return tag("div", tag("ol", *rows), foot, class_="bars")


def _bar(value: Spread) -> Markup:
    share = 100 * (value.mean or 0.0)
    parts = [
        tag("path", d="M25 0V10M50 0V10M75 0V10M100 0V10", class_="grid"),
        tag("rect", x=0, y=1, width=number(share), height=8, class_="bar"),
    ]
    if value.sd:
        low, high = max(0.0, share - 100 * value.sd), min(100.0, share + 100 * value.sd)
        parts.append(tag("path", d=f"M{low:.2f} 5H{high:.2f}M{low:.2f} 3V7M{high:.2f} 3V7", class_="whisker"))
    return tag("svg", *parts, viewBox="0 0 100 10", preserveAspectRatio="none", aria_hidden="true")
