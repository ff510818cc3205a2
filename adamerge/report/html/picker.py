"""Controls: which methods are picked out, and which of several pictures is shown. Hidden until report.js runs."""

from __future__ import annotations

from collections.abc import Sequence

from adamerge.report.html.markup import Markup, tag
from adamerge.report.html.view import View


def picker(view: View) -> Markup:
    """A box per method, for all figures of the comparison at once."""
    boxes = [
        tag(
            "label",
            tag("input", type="checkbox", value=index, checked=index in view.picked),
            tag("span", class_=view.classes(index, "swatch mark"), data_m=index, aria_hidden="true"),
            tag("span", group.name, class_="word", title=group.name),
        )
        for index, group in enumerate(view.groups)
    ]
    buttons = [tag("button", word, type="button", data_pick=word) for word in ("default", "all", "none")]
    summary = tag(
        "summary", "Methods in the figures: ", tag("output", f"{len(view.picked)} of {len(view.groups)}")
    )
    group = tag(
        "fieldset",
        tag("legend", "Picked methods have a colour; by default the best of each objective"),
        tag("div", *buttons, class_="buttons"),
        tag("div", *boxes, class_="boxes"),
    )
    return tag("details", summary, group, class_="picker control")


def legend(view: View, only: Sequence[int] | None = None) -> Markup:
    """Names and colours of the picked methods, below a figure."""
    items = [
        tag(
            "li",
            tag("span", class_=view.classes(i, "swatch mark"), data_m=i),
            tag("span", view.groups[i].name, class_="word", title=view.groups[i].name),
            class_=view.classes(i, "pick"),
            data_m=i,
        )
        for i in (range(len(view.groups)) if only is None else only)
    ]
    return tag("ul", *items, class_="legend")


def switch(key: str, label: str, panels: Sequence[tuple[str, Markup]]) -> Markup:
    """One picture of several by name; without JavaScript all are shown, one below the other."""
    options = [tag("option", name, value=i) for i, (name, _) in enumerate(panels)]
    control = tag(
        "div",
        tag("label", label, for_=key),
        tag("select", *options, id=key, autocomplete="off"),
        class_="control",
    )
    shown = [
        tag("div", panel, class_="panel" if i else "panel current", data_panel=i)
        for i, (_, panel) in enumerate(panels)
    ]
    return tag("div", control, *shown, class_="switch")
