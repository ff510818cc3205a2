"""The whole page, from what `collect` found."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from adamerge.report.collect import Collected
from adamerge.report.html.markup import Markup, tag
from adamerge.report.html.section import section
from adamerge.report.html.tables import Cell, sortable
from adamerge.report.html.view import View
from adamerge.report.made import made_of
from adamerge.report.names import CYCLE
from adamerge.report.protocols import stream_tables

_HERE = Path(__file__).parent
_ICON = "data:image/svg+xml,%3Csvg/%3E"  # keeps browsers from asking for one


def page(collected: Collected) -> str:
    """Self-contained HTML: style and script are in it, nothing is loaded."""
    views = [View.of(comparison, f"s{i}") for i, comparison in enumerate(collected.comparisons)]
    problems: list[tuple[Path, str]] = []
    sections = [section(view, problems) for view in views]
    suites = ", ".join(dict.fromkeys(view.comparison.suite for view in views)) or "no finished run"
    body = [
        tag("a", "Skip to the results", href="#main", class_="skip"),
        tag("header", tag("h1", f"Comparison: {suites}"), _facts(views, collected), _contents(views)),
        tag(
            "main",
            *sections,
            *_streams(collected),
            _left_out(collected.unfinished, problems),
            id="main",
            tabindex=-1,
        ),
        tag("footer", tag("p", "Written by adamerge compare.")),
        tag("script", _asset("report.js")),
    ]
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("link", rel="icon", href=_ICON),
        tag("title", f"adamerge: {suites}"),
        tag("style", Markup(_palette() + _asset("report.css"))),
    ]
    return f"<!DOCTYPE html>\n{tag('html', tag('head', *head), tag('body', *body), lang='en')}\n"


def _streams(collected: Collected) -> list[Markup]:
    """Methods by streams, where there are several streams."""
    found = []
    for i, (title, streams, rows) in enumerate(stream_tables(collected.comparisons)):
        cells = [(name, [Cell(*cell) for cell in own]) for name, own in rows]
        table = sortable("Average after adapting on a stream in that order.", streams, cells)
        key = f"streams{i}-title"
        found.append(tag("section", tag("h2", f"{title}: streams", id=key), table, aria_labelledby=key))
    return found


def _asset(name: str) -> Markup:
    return Markup((_HERE / name).read_text(encoding="utf-8"))


def _palette() -> str:
    colors = ";".join(f"--c{i}:{color}" for i, color in enumerate(CYCLE))
    return f":root{{{colors}}}\n"


def _facts(views: Sequence[View], collected: Collected) -> Markup:
    groups = [group for view in views for group in view.groups]
    seeds = sorted({seed for group in groups for seed in group.seeds})
    facts = {
        "Suites": "; ".join(dict.fromkeys(view.comparison.suite for view in views)),
        "Backbones": "; ".join(dict.fromkeys(view.comparison.backbone for view in views)),
        "Tasks": ", ".join(dict.fromkeys(task for view in views for task in view.tasks)),
        "Finished runs": str(sum(len(group.runs) for group in groups)),
        "Left out": str(len(collected.unfinished)) if collected.unfinished else "",
        "Seeds": ", ".join(map(str, seeds)),
        **made_of([run for group in groups for run in group.runs]),
    }
    rows = [tag("div", tag("dt", name), tag("dd", value)) for name, value in facts.items() if value]
    return tag("dl", *rows)


def _contents(views: Sequence[View]) -> Markup:
    """Only where there is something to choose from."""
    if len(views) < 2:
        return Markup()
    links = [
        tag(
            "li",
            tag("a", f"{v.comparison.title}, {len(v.tasks)} tasks", href=f"#{v.key}"),
        )
        for v in views
    ]
    return tag("nav", tag("ul", *links), aria_label="Comparisons")


def _left_out(unfinished: Sequence[tuple[Path, str]], problems: Sequence[tuple[Path, str]]) -> Markup:
    lines = [*unfinished, *problems]
    if not lines:
        return Markup()
    # Relative to what they share: the page may be handed on, the machine's folders are nobody's business.
    shared = os.path.commonpath([path.parent for path, _ in lines])
    items = [
        tag("li", tag("code", os.path.relpath(path, shared)), ": ", reason.replace(f"{shared}{os.sep}", ""))
        for path, reason in lines
    ]
    return tag(
        "section",
        tag("h2", "Left out", id="left-out"),
        tag(
            "details",
            tag("summary", f"{len(lines)} folders and files"),
            tag("ul", *items),
            open=len(lines) <= 8,
        ),
        aria_labelledby="left-out",
    )
