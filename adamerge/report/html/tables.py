"""The tables of the page: numbers as compare.md has them, cost, and the settings that differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adamerge.report.collect import Group, Spread, differing
from adamerge.report.comparison import lines, spread
from adamerge.report.facts import apart_in, of_group
from adamerge.report.html.markup import Markup, tag
from adamerge.report.html.view import View
from adamerge.report.names import memory, percent, seconds
from adamerge.report.protocols import CALIBRATION_HEADS, GAP_HEADS, Rows, calibration_rows, gap_rows
from adamerge.report.routing import HEADS, WORDS, routing_rows

_MISSING = "–"


@dataclass(frozen=True)
class Cell:
    """What is shown, and the number that it is sorted by."""

    text: str
    value: float | None = None
    best: bool = False


def accuracy_table(view: View) -> Markup:
    """Average and every task with the spread over seeds; baselines first, best in bold."""
    with_labels = view.value == "accuracy"
    apart = apart_in(view.comparison)
    heads = ["average", *(("normalised", "agreement") if with_labels else ()), *view.tasks, "seeds", *apart]
    rows = []
    agreeing = {line.name: line.values[0].mean for line in lines(view.comparison, "agreement")}
    for line in view.lines:
        shares = [Cell(spread(v), v.mean, b) for v, b in zip(line.values, line.best, strict=True)]
        normalised = line.group.spread("normalized_average").mean if line.group else None
        extra = [Cell(percent(share), share) for share in (normalised, agreeing[line.name])]
        count = len(line.group.runs) if line.group else None
        seeds = Cell("" if count is None else str(count), count)
        own = of_group(line.group) if line.group else {}
        facts = [Cell(own.get(name, "")) for name in apart]
        rows.append((line.name, [shares[0], *(extra if with_labels else ()), *shares[1:], seeds, *facts]))
    words = f"{view.value.capitalize()} per task in percent, mean ± standard deviation over seeds. "
    words += "Bold: the best of a column among rows of as many seeds"
    words += ", and what cannot be told from it" if view.comparison.evidence.correct else ""
    words += "; the individual experts are a reference."
    return sortable(words, heads, rows)


def gap_table(view: View) -> Markup | None:
    """Both parts of the test split, where only a part was adapted on."""
    words = "Accuracy on the test images that were adapted on and on the others, and the gap in points. "
    words += "A static rule's gap is how far the two parts differ by themselves."
    return _protocol_table(words, GAP_HEADS, gap_rows(view.comparison))


def calibration_table(view: View) -> Markup | None:
    words = "Calibration, means over tasks and seeds: expected calibration error (15 bins), negative log-likelihood, "
    words += "Brier score; the less, the better."
    return _protocol_table(words, CALIBRATION_HEADS, calibration_rows(view.comparison))


def routing_table(view: View) -> Markup | None:
    """What a model is worth where the task of an image is not known."""
    return _protocol_table(f"{WORDS} Means over tasks and seeds.", HEADS, routing_rows(view.comparison))


def _protocol_table(words: str, heads: Sequence[str], rows: Rows) -> Markup | None:
    if not rows:
        return None
    return sortable(words, heads, [(name, [Cell(*cell) for cell in cells]) for name, cells in rows])


def cost_table(view: View) -> Markup:
    """What a method takes. Seconds and memory are means over seeds."""
    heads = ["trained parameters", "prepare", "adapt", "evaluate", "peak memory", "device"]
    rows = []
    for group in view.groups:
        first = group.runs[0].results
        peak = group.spread("peak_memory_bytes").mean
        devices = ", ".join(sorted({run.results.device for run in group.runs}))
        rows.append(
            (
                group.name,
                [
                    Cell(f"{first.trainable_parameters:,}", first.trainable_parameters),
                    *(_seconds(group.seconds(phase)) for phase in ("prepare", "adapt", "evaluate")),
                    Cell(memory(round(peak)) if peak else _MISSING, peak),
                    Cell(devices),
                ],
            )
        )
    return sortable("Cost of each method, means over seeds.", heads, rows)


def _seconds(value: Spread) -> Cell:
    return Cell(_MISSING if value.mean is None else seconds(value.mean), value.mean)


def sortable(caption: str, heads: Sequence[str], rows: Sequence[tuple[str, list[Cell]]]) -> Markup:
    """A table whose heads are buttons once report.js runs; before that they are words."""
    head = tag("tr", *(tag("th", name, scope="col") for name in ("method", *heads)))
    body = [tag("tr", tag("th", named(name), scope="row"), *map(_cell, cells)) for name, cells in rows]
    return scrolling(caption, tag("thead", head), tag("tbody", *body), kind="sortable")


def named(words: str) -> Markup:
    """A method or a setting; report.css cuts what is long."""
    return tag("span", words, class_="method", title=words)


def _cell(cell: Cell) -> Markup:
    shown = tag("strong", cell.text) if cell.best else cell.text
    return tag("td", shown, data_v=None if cell.value is None else repr(float(cell.value)))


def scrolling(caption: str, *parts: Markup, kind: str = "") -> Markup:
    """A table in a box of its own that scrolls sideways, also by keyboard."""
    table = tag("table", tag("caption", tag("span", caption)), *parts, class_=kind or None)
    return tag("div", table, class_="scroll", tabindex=0, role="region", aria_label=caption)


def settings_table(view: View) -> Markup | None:
    """A row per setting that differs between groups, a column per group. None where nothing differs."""
    keys = differing(view.groups)
    if not keys:
        return None
    heads = [
        tag("th", named(group.name), scope="col", class_=view.classes(i, "pick"), data_m=i)
        for i, group in enumerate(view.groups)
    ]
    body = []
    for key in keys:
        cells = [
            tag("td", _setting(group, key), class_=view.classes(i, "pick"), data_m=i)
            for i, group in enumerate(view.groups)
        ]
        body.append(tag("tr", tag("th", named(key), scope="row"), *cells))
    head = tag("tr", tag("th", "setting", scope="col"), *heads)
    caption = "Settings in which the methods differ; an empty cell: the method has no such setting."
    return scrolling(caption, tag("thead", head), tag("tbody", *body), kind="settings")


def _setting(group: Group, key: str) -> str:
    config = group.runs[0].config
    if key not in config:
        return ""
    value = config[key]
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
