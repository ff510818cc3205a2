"""Tables of a comparison: on the console, as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from adamerge.report.collect import Comparison, Group, Spread
from adamerge.report.names import percent, seconds, shown
from adamerge.report.published import Published, published
from adamerge.tracking.results import mean

_BASELINES = ("pretrained", "weight_average", "task_arithmetic", "individual")
# How ours stands to what was published: within the tolerance, below, above, not judged.
_MARKS = {"within": "✓", "below": "▼", "above": "▲", "not judged": "?"}
_WIDTHS = {"average": 11, "published": 6, "trained": 9, "seeds": 5}
_REFERENCE = "individual"  # the upper reference is never the best


def console_table(comparison: Comparison) -> Table:
    """Averages, agreement and cost of every group."""
    title = f"{comparison.suite}, {comparison.backbone}, {len(comparison.tasks)} tasks"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("method", no_wrap=True, max_width=24)
    known = {group.name: published_of(group) for group in comparison.groups}
    heads = ["average", "agrees", "trained", "adapt", "seeds"]
    if any(known.values()):
        heads.insert(1, "published")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True, min_width=_WIDTHS.get(head, 6))
    best = _best([group.spread("average").mean for group in comparison.groups if group.name != _REFERENCE])
    for group in comparison.groups:
        average = group.spread("average")
        style = "bold green" if average.mean is not None and average.mean == best else ""
        row = cells(group)
        if any(known.values()):
            row.insert(1, _beside(group, known[group.name]))
        table.add_row(group.name, *row, style=style)
    return table


def published_of(group: Group) -> Published | None:
    """What was published for this method on these tasks, backbone and experts; where one of the runs is not judged,
    why."""
    found = [published(run.results, run.config, run.preset) for run in group.runs]
    return next((known for known in found if known is not None and known.reason), found[-1])


def _accuracy(group: Group) -> dict[str, float | None]:
    """Means over the seeds, by task."""
    return {task: group.accuracy(task).mean for task in group.runs[0].results.tasks}


def _beside(group: Group, known: Published | None) -> str:
    """The published average, and how ours stands to it."""
    if known is None:
        return ""
    verdict = known.verdict(_accuracy(group))
    return f"{percent(known.average)} {_MARKS[verdict]}"


def cells(group: Group) -> list[str]:
    """What is shown of a group beside its name."""
    first = group.runs[0].results
    used = group.seconds("adapt").mean
    return [
        spread(group.spread("average")),
        percent(group.spread("agreement").mean),
        f"{first.trainable_parameters:,}",
        seconds(used) if used is not None else "",
        str(len(group.runs)),
    ]


def spread(value: Spread) -> str:
    """Percent with one decimal, and the standard deviation over seeds where there are several."""
    return percent(value.mean) if value.sd is None else f"{percent(value.mean)} ± {percent(value.sd)}"


def markdown(comparison: Comparison) -> str:
    """Average and tasks of every group and of what the runs were compared with; the best in bold."""
    heads = ["method", "average", *comparison.tasks]
    text = [f"| {' | '.join(heads)} |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    text += [f"| {' | '.join(row)} |" for row in _rows(comparison, spread, "**{}**".format)]
    return "\n".join([*text, *_unseen(comparison)]) + "\n"


def _unseen(comparison: Comparison) -> list[str]:
    """A table of the tasks that no expert was merged for, the pre-trained model first; nothing where there are none."""
    groups = [group for group in comparison.groups if group.runs[0].results.unseen]
    tasks = list(dict.fromkeys(task for group in groups for task in group.runs[0].results.unseen))
    if not tasks:
        return []

    def cells(name: str, values: list[float | None]) -> str:
        return f"| {' | '.join([name, percent(mean(values)), *map(percent, values)])} |"

    def of(group: Group, value: str) -> list[float | None]:
        found = [[getattr(run.results.unseen.get(task), value, None) for run in group.runs] for task in tasks]
        return [mean(values) for values in found]

    rows = [cells(shown("pretrained"), of(groups[0], "pretrained"))]
    for group in groups:
        rows.append(cells(group.name, of(group, "accuracy")))
        known = published_of(group)
        if known is not None and known.unseen is not None:
            judged = f": not judged: {known.reason}" if known.reason else ""
            theirs = [known.unseen.get(task) for task in tasks]
            rows.append(cells(f"- published ({known.source}){judged}", theirs))
    head = f"| {' | '.join(['unseen tasks', 'average', *tasks])} |"
    return ["", head, "|---" + "|---:" * (1 + len(tasks)) + "|", *rows]


def latex(comparison: Comparison) -> str:
    """The same as a booktabs table."""

    def shown_in_tex(value: Spread) -> str:
        text = percent(value.mean)
        return text if value.sd is None else f"{text} {{\\tiny$\\pm${percent(value.sd)}}}"

    heads = " & ".join(_escaped(head) for head in ("method", "average", *comparison.tasks))
    rows = [
        " & ".join([_escaped(row[0]), *row[1:]]) + r" \\"
        for row in _rows(comparison, shown_in_tex, "\\textbf{{{}}}".format)
    ]
    columns = "l" + "r" * (1 + len(comparison.tasks))
    body = [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        rf"{heads} \\",
        r"\midrule",
        *rows,
        r"\bottomrule",
    ]
    return "\n".join([*body, r"\end{tabular}"]) + "\n"


def _escaped(text: str) -> str:
    return text.replace("_", r"\_").replace("%", r"\%").replace("&", r"\&").replace("#", r"\#")


def csv_table(comparisons: Sequence[Comparison]) -> str:
    """One line per group with plain numbers: shares between 0 and 1, seconds, bytes."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    plain = ("average", "normalized_average", "agreement", "trainable_parameters", "peak_memory_bytes")
    told = ("average", "tolerance", "verdict", "words", "accuracy")
    theirs = [f"published_{name}" for name in told]
    first_half = ("suite", "backbone", "method", "rule", "seeds", *plain, "average_sd")
    writer.writerow(
        (*first_half, "adapt_seconds", "evaluate_seconds", "task", "accuracy", "accuracy_sd", *theirs)
    )
    for comparison in comparisons:
        for group in comparison.groups:
            first = group.runs[0].results
            own = [
                comparison.suite,
                comparison.backbone,
                group.name,
                first.rule,
                " ".join(map(str, group.seeds)),
            ]
            numbers = [group.spread(name).mean for name in plain]
            cost = [group.seconds("adapt").mean, group.seconds("evaluate").mean]
            known = published_of(group)
            judged: list[float | str | None] = [None] * 4
            if known is not None:
                ours = _accuracy(group)
                judged = [known.average, known.tolerance, known.verdict(ours), known.words(ours)]
            for task in comparison.tasks:
                value = group.accuracy(task)
                row = [*own, *numbers, group.spread("average").sd, *cost, task, value.mean, value.sd]
                there = known.tasks.get(task) if known and known.tasks else None
                writer.writerow([*row, *judged, there])
    return out.getvalue()


@dataclass(frozen=True)
class Line:
    """A line of the table: what runs were compared with (`group` is None), or a group.

    Attributes:
        values: the average, then each task.
        best: which of them are the best of their column.
    """

    name: str
    group: Group | None
    values: tuple[Spread, ...]
    best: tuple[bool, ...]


def lines(comparison: Comparison, value: str = "accuracy") -> list[Line]:
    """Every line of the table, baselines first. `value` is accuracy or agreement."""
    found: list[tuple[str, Group | None, list[Spread]]] = [
        *((name, None, values) for name, values in _baselines(comparison, value)),
        *((group.name, group, _columns(comparison, group, value)) for group in comparison.groups),
    ]
    best = [
        _best([values[i].mean for name, _, values in found if not is_reference(name)])
        for i in range(1 + len(comparison.tasks))
    ]
    return [
        Line(
            name,
            group,
            tuple(values),
            tuple(
                v.mean is not None and v.mean == top and not is_reference(name)
                for v, top in zip(values, best, strict=True)
            ),
        )
        for name, group, values in found
    ]


def is_reference(name: str) -> bool:
    """The experts themselves: what others are measured by, never the best."""
    return name in (_REFERENCE, shown(_REFERENCE))


def _rows(
    comparison: Comparison, show: Callable[[Spread], str], bold: Callable[[str], str]
) -> list[list[str]]:
    """Name and cells of every line, baselines first, the best of each column marked."""
    known = {g.name: published_of(g) for g in comparison.groups}
    rows = []
    for line in lines(comparison):
        cells = [bold(show(v)) if best else show(v) for v, best in zip(line.values, line.best, strict=True)]
        rows.append([line.name, *cells])
        theirs = known.get(line.name)
        if theirs is not None and line.group is not None:
            rows.append(_published_row(theirs, _accuracy(line.group), comparison.tasks, show))
    return rows


def _published_row(
    known: Published, ours: dict[str, float | None], tasks: Sequence[str], show: Callable[[Spread], str]
) -> list[str]:
    return [
        f"- published ({known.source}): {known.words(ours)}",
        show(Spread(known.average)),
        *(show(Spread((known.tasks or {}).get(task))) for task in tasks),
    ]


def _columns(comparison: Comparison, group: Group, value: str) -> list[Spread]:
    average = group.spread("average" if value == "accuracy" else value)
    return [average, *(group.of_task(task, value) for task in comparison.tasks)]


def _baselines(comparison: Comparison, value: str) -> list[tuple[str, list[Spread]]]:
    """What every run was compared with, once, unless it is among the groups itself."""
    if not comparison.groups:
        return []
    own = {group.name for group in comparison.groups}
    found = comparison.groups[0].runs[0].results.baselines
    shares = {name: getattr(found[name], value) for name in _BASELINES if name in found and name not in own}
    return [
        (shown(name), [Spread(mean(list(known.values()))), *(Spread(known.get(t)) for t in comparison.tasks)])
        for name, known in shares.items()
    ]


def _best(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
