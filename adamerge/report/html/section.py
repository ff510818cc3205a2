"""The section of one comparison: tables and figures, each left out where no run has data for it."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from pathlib import Path

from adamerge.report.evidence_tables import pictures_line
from adamerge.report.facts import shared_line
from adamerge.report.html.artifacts import Artifacts, Coefficients, Curve, read_artifacts
from adamerge.report.html.bars import bars
from adamerge.report.html.clouds import clouds
from adamerge.report.html.curves import curves
from adamerge.report.html.evidence import evidence
from adamerge.report.html.heatmap import block_name, edges, heatmap
from adamerge.report.html.markup import Markup, joined, tag
from adamerge.report.html.picker import legend, picker, switch
from adamerge.report.html.radar import radar
from adamerge.report.html.scatter import Point, scatter
from adamerge.report.html.tables import (
    Cell,
    accuracy_table,
    calibration_table,
    cost_table,
    gap_table,
    routing_table,
    scrolling,
    settings_table,
    sortable,
)
from adamerge.report.html.view import View
from adamerge.report.names import WATCHED
from adamerge.report.objectives import objective


def section(view: View, problems: list[tuple[Path, str]]) -> Markup:
    """Everything about one suite, backbone and set of tasks."""
    found = [read_artifacts(group, problems) for group in view.groups]
    parts = [
        ("results", "Results", accuracy_table(view)),
        ("overview", "Average and tasks", _overview(view)),
        ("evidence", "Intervals and tests", evidence(view)),
        ("cost", "Accuracy and cost" if view.value == "accuracy" else "Agreement and cost", _scatters(view)),
        ("loss", "Loss", _curves(view, found)),
        ("watched", "Evaluation while training", _watched(view, found)),
        ("coefficients", "Merging coefficients", _maps(view, found)),
        ("representations", "Representation bias", _representations(view, found)),
        ("gap", "Adapted on or not", gap_table(view)),
        ("calibration", "Calibration", calibration_table(view)),
        ("routing", "Task unknown", routing_table(view)),
        ("table", "Cost", cost_table(view)),
        ("settings", "Settings", settings_table(view)),
    ]
    shown = [(f"{view.key}-{key}", title, body) for key, title, body in parts if body]
    comparison = view.comparison
    title = f"{comparison.title}, {len(comparison.tasks)} tasks"
    links = [tag("li", tag("a", title, href=f"#{key}")) for key, title, _ in shown]
    return tag(
        "section",
        tag("h2", title, id=f"{view.key}-title"),
        tag("p", _facts(view)),
        tag("nav", tag("ul", *links), aria_label=f"Contents of {title}", class_="contents"),
        picker(view),
        *(
            tag("section", tag("h3", name, id=key), body or "", aria_labelledby=key)
            for key, name, body in shown
        ),
        class_="comparison",
        id=view.key,
        aria_labelledby=f"{view.key}-title",
    )


def _facts(view: View) -> str:
    runs = [run for group in view.groups for run in group.runs]
    seeds = sorted({run.results.seed for run in runs})
    return (
        f"{_count(len(runs), 'run')} of {_count(len(view.groups), 'method')}, seeds {', '.join(map(str, seeds))}. "
        f"Tasks: {', '.join(view.tasks)}. {pictures_line(view.comparison)} {shared_line(view.comparison)}"
    ).rstrip()


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def figure(caption: str, *body: str, **attributes: str) -> Markup:
    return tag("figure", *body, tag("figcaption", caption), **attributes)


def _overview(view: View) -> Markup:
    words = f"Average {view.value} in percent; the thin line is the standard deviation over seeds."
    charts = [figure(words, bars(view))]
    star = radar(view)
    if star:
        charts.append(
            figure(f"{view.value.capitalize()} per task; the grey area is the experts'.", star, legend(view))
        )
    return tag("div", *charts, class_="charts")


def _scatters(view: View) -> Markup | None:
    name = f"average {view.value} (%)"
    groups = [(i, g) for i, g in enumerate(view.groups) if view.average(g).mean is not None]
    charts = []

    def chart(points: list[Point], caption: str, x_label: str, log: bool | None) -> None:
        if points:
            charts.append(figure(caption, scatter(view, points, x_label, name, log)))

    trained = [
        Point(i, g.name, float(g.runs[0].results.trainable_parameters), view.average(g)) for i, g in groups
    ]
    chart(trained, "What is trained; rules train nothing. Grey: not picked.", "trained parameters", True)
    used = [(i, g, g.seconds("adapt").mean) for i, g in groups]
    timed = [Point(i, g.name, s, view.average(g)) for i, g, s in used if s is not None]
    chart(timed, "Time of adapting. Grey: not picked.", "seconds of adapting", None)
    if view.value == "accuracy":
        shares = [(i, g, g.spread("agreement").mean) for i, g in groups]
        agreeing = [Point(i, g.name, 100 * a, view.average(g)) for i, g, a in shares if a is not None]
        caption = "Agreement with the experts, which needs no labels, against accuracy, which does."
        chart(agreeing, caption, "agreement with the experts (%)", False)
    return tag("div", *charts, class_="charts") if charts else None


def _curves(view: View, found: list[Artifacts]) -> Markup | None:
    by_objective: dict[str, dict[int, Curve]] = defaultdict(dict)
    for index, (group, own) in enumerate(zip(view.groups, found, strict=True)):
        if own.curve:
            first = group.runs[0]
            by_objective[objective(first.results, first.config)][index] = own.curve
    if not by_objective:
        return None
    charts = [
        figure(
            f"{label[0].upper()}{label[1:]}: sum over a step's batches, mean over tasks and seeds. Grey: not picked.",
            curves(view, series, label),
            legend(view, sorted(series)),
        )
        for label, series in by_objective.items()
    ]
    return tag("div", *charts, class_="charts")


def _watched(view: View, found: list[Artifacts]) -> Markup | None:
    charts = []
    for key, words in WATCHED.items():
        series = {i: own.watched[key] for i, own in enumerate(found) if key in own.watched}
        if series:
            caption = f"{words[0].upper()}{words[1:]}, on a few images, mean over tasks and seeds. Grey: not picked."
            drawn = curves(view, series, f"{words} (%)", low=None)
            charts.append(figure(caption, drawn, legend(view, sorted(series))))
    return tag("div", *charts, class_="charts") if charts else None


def _maps(view: View, found: list[Artifacts]) -> Markup | None:
    panels = []
    for group, own in zip(view.groups, found, strict=True):
        table = own.coefficients
        if table:
            seeds = f", mean over {table.seeds} seeds" if table.seeds > 1 else ""
            words = f"{group.name}{seeds}: layers from the input (top) to the output."
            panels.append(
                (group.name, figure(words, heatmap(table, group.name), _numbers(table, group.name)))
            )
    return switch(f"{view.key}-map", "Coefficients of", panels) if panels else None


def _numbers(table: Coefficients, name: str) -> Markup:
    """The map for those who cannot see it: the mean coefficient of each block."""
    rows = []
    for a, b in pairwise(edges(table.layers)):
        means = [sum(row[j] for row in table.values[a:b]) / (b - a) for j in range(len(table.tasks))]
        cells = "".join(tag("td", f"{value:.3f}") for value in means)
        rows.append(tag("tr", tag("th", block_name(table.layers, a), scope="row"), Markup(cells)))
    head = tag("tr", *(tag("th", word, scope="col") for word in ("block", *table.tasks)))
    body = scrolling(f"Mean coefficient of each block, {name}.", tag("thead", head), tag("tbody", *rows))
    return tag("details", tag("summary", "Numbers"), body)


def _representations(view: View, found: list[Artifacts]) -> Markup | None:
    have = [
        (g, own.representations) for g, own in zip(view.groups, found, strict=True) if own.representations
    ]
    if not have:
        return None
    rows = []
    panels = []
    for group, own in have:
        values = [own.distance.get(task) for task in view.tasks]
        rows.append((group.name, [Cell("–" if v is None else f"{v:.4g}", v) for v in values]))
        chart = clouds(own, group.name)
        if chart:
            panels.append((group.name, figure(_cloud_words(group.name, own.task), chart)))
    caption = (
        "Distance of the merged features to the expert's, per task: mean absolute difference over images and channels; "
        "the less, the better."
    )
    table = sortable(caption, view.tasks, rows)
    return joined((table, switch(f"{view.key}-cloud", "Representations of", panels) if panels else Markup()))


def _cloud_words(name: str, task: str) -> Markup:
    expert, merged = tag("span", "○", class_="key c2"), tag("span", "×", class_="key c3")
    return joined((f"{name} on {task}, the same images: ", expert, " expert, ", merged, " merged."))
