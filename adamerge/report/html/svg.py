"""The parts that all drawn charts share: the picture, its axes and a text."""

from __future__ import annotations

from adamerge.report.html.markup import Markup, tag
from adamerge.report.html.scale import Scale, label

WIDTH, HEIGHT = 480, 320
LEFT, RIGHT, TOP, BOTTOM = 52.0, 468.0, 32.0, 270.0


def picture(name: str, *parts: Markup, height: float = HEIGHT) -> Markup:
    """An SVG that grows with its container; `name` is what a screen reader says."""
    return tag("svg", *parts, viewBox=f"0 0 {WIDTH} {height:g}", role="img", aria_label=name)


def text(words: str, x: float, y: float, anchor: str = "middle", kind: str = "") -> Markup:
    return tag("text", words, x=number(x), y=number(y), text_anchor=anchor, class_=kind or None)


def frame(x: Scale, y: Scale, x_label: str, y_label: str) -> Markup:
    """Grid lines, tick values and the names of both axes."""
    parts = []
    for value in y.ticks():
        at = y.at(value)
        parts.append(tag("path", d=f"M{LEFT:g} {number(at)}H{RIGHT:g}", class_="grid"))
        parts.append(text(label(value), LEFT - 7, at + 4, "end"))
    for value in x.ticks():
        at = x.at(value)
        parts.append(tag("path", d=f"M{number(at)} {TOP:g}V{BOTTOM:g}", class_="grid"))
        parts.append(text(label(value), at, BOTTOM + 18))
    parts.append(tag("path", d=f"M{LEFT:g} {TOP:g}V{BOTTOM:g}H{RIGHT:g}", class_="axis"))
    parts.append(text(x_label, (LEFT + RIGHT) / 2, HEIGHT - 10, kind="name"))
    # Above the axis, not turned: long names have room there and are easier to read.
    parts.append(text(y_label, 8, 16, "start", kind="name"))
    return tag("g", *parts, class_="frame")


def number(value: float) -> str:
    """A place in the picture, to a tenth."""
    return f"{value:.1f}".removesuffix(".0")
