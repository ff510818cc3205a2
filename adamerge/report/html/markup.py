"""HTML and SVG as text. Whatever is not markup already is escaped, so that no name can become an element."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

_VOID = frozenset(("br", "input", "link", "meta"))
Attribute = str | float | int | bool | None


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(element: str, *children: str, **attributes: Attribute) -> Markup:
    """`tag("p", "a < b", class_="x")`: an underscore in an attribute's name stands for a hyphen.

    True gives an attribute without a value; None and False leave it out.
    """
    opened = "".join([f"<{element}", *(_attribute(name, value) for name, value in attributes.items()), ">"])
    if element in _VOID:
        return Markup(opened)
    return Markup(f"{opened}{joined(children)}</{element}>")


def joined(children: Iterable[str]) -> Markup:
    return Markup("".join(c if isinstance(c, Markup) else escape(c, quote=False) for c in children))


def _attribute(name: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return f' {name}="{escape(text)}"'
