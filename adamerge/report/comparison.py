"""Tables of a comparison: on the console, as Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from adamerge.report.collect import Comparison, Group, Spread
from adamerge.report.evidence import BASELINES, Evidence
from adamerge.report.facts import apart_in, head, of_group, shared_line, short
from adamerge.report.names import percent, seconds, shown
from adamerge.report.published import Published, published
from adamerge.tracking.results import mean

# How ours stands to what was published: within the tolerance, below, above, not judged.
_MARKS = {"within": "✓", "below": "▼", "above": "▲", "not judged": "?"}
CALIBRATION = ("ece", "nll", "brier")
_WIDTHS = {"average": 11, "gap": 5, "published": 6, "trained": 9, "seeds": 5}
_REFERENCE = "individual"  # the upper reference is never the best


def console_table(comparison: Comparison) -> Table:
    """Averages, agreement and cost of every group."""
    title = f"{comparison.title}, {len(comparison.tasks)} tasks"
    table = Table(
        title=title,
        title_justify="left",
        caption=shared_line(comparison) or None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
        pad_edge=False,
    )
    table.add_column("method", overflow="fold", min_width=16, max_width=24)
    known = {group.name: published_of(group) for group in comparison.groups}
    apart, gaps = apart_in(comparison), has_gaps(comparison)
    timed = ["adapt"] if not (apart or gaps) else []  # 80 columns have no room for all
    heads = ["average", *(["gap"] if gaps else []), "agrees", "trained", *timed, "seeds", *map(head, apart)]
    if any(known.values()):
        heads.insert(1, "published")
    for name in heads:
        table.add_column(name, justify="right", no_wrap=True, min_width=_WIDTHS.get(name, 6))
    compared = [group for group in comparison.among_as_many_seeds() if group.name != _REFERENCE]
    best = best_of({group.name: group.spread("average").mean for group in compared}, comparison.evidence)
    for group in comparison.groups:
        style = "bold green" if group.name in best else ""
        own = of_group(group)
        row = [*cells(group, bool(timed)), *(short(own.get(name, "")) for name in apart)]
        if gaps:
            row.insert(1, signed(group.spread("gap").mean))
        if any(known.values()):
            row.insert(1, _beside(group, known[group.name]))
        table.add_row(group.name, *row, style=style)
    return table


def published_of(group: Group) -> Published | None:
    """What was published for this method on these tasks, backbone and experts; where one of the runs is not judged,
    why."""
    found = [published(run.results, run.config, run.preset) for run in group.runs]
    return next((known for known in found if known is not None and known.reason), found[-1])


def accuracy_of(group: Group) -> dict[str, float | None]:
    """Means over the seeds, by task."""
    return {task: group.accuracy(task).mean for task in group.runs[0].results.tasks}


def _beside(group: Group, known: Published | None) -> str:
    """The published average, and how ours stands to it."""
    if known is None:
        return ""
    verdict = known.verdict(accuracy_of(group))
    return f"{percent(known.average)} {_MARKS[verdict]}"


def cells(group: Group, timed: bool = True) -> list[str]:
    """What is shown of a group beside its name; `timed`: with the seconds of adapting."""
    used = group.seconds("adapt").mean
    return [
        spread(group.spread("average")),
        percent(group.spread("agreement").mean),
        f"{group.runs[0].results.trainable_parameters:,}",
        *([seconds(used) if used is not None else ""] if timed else []),
        str(len(group.runs)),
    ]


def has_gaps(comparison: Comparison) -> bool:
    """Whether some model was scored both on images that it was adapted on and on others."""
    return any(group.spread("gap").mean is not None for group in comparison.groups)


def signed(share: float | None) -> str:
    """A difference in points."""
    return "" if share is None else f"{100 * share:+.1f}"


def spread(value: Spread) -> str:
    """Percent with one decimal, and the standard deviation over seeds where there are several."""
    return percent(value.mean) if value.sd is None else f"{percent(value.mean)} ± {percent(value.sd)}"


def markdown(comparison: Comparison) -> str:
    """Average and tasks of every group and of what the runs were compared with; the best in bold."""
    shared = shared_line(comparison)
    text = [shared, ""] if shared else []
    text += table_in_markdown(_heads(comparison), _rows(comparison, spread, "**{}**".format))
    return "\n".join([*text, *_unseen(comparison)]) + "\n"


def _unseen(comparison: Comparison) -> list[str]:
    """A table of the tasks that no expert was merged for, the pre-trained model first; nothing where there are none."""
    groups = [group for group in comparison.groups if group.runs[0].results.unseen]
    tasks = list(dict.fromkeys(task for group in groups for task in group.runs[0].results.unseen))
    if not tasks:
        return []

    def cells(name: str, values: list[float | None]) -> list[str]:
        return [name, percent(mean(values)), *map(percent, values)]

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
    return ["", *table_in_markdown(["unseen tasks", "average", *tasks], rows)]


def table_in_markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(heads)} |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def _heads(comparison: Comparison) -> list[str]:
    """The facts in which groups differ stand behind the numbers."""
    return ["method", "average", *comparison.tasks, *apart_in(comparison)]


def latex(comparison: Comparison) -> str:
    """The same as a booktabs table."""

    def shown_in_tex(value: Spread) -> str:
        text = percent(value.mean)
        return text if value.sd is None else f"{text} {{\\tiny$\\pm${percent(value.sd)}}}"

    names, apart = _heads(comparison), len(apart_in(comparison))
    rows = [
        [escaped(row[0]), *row[1 : len(row) - apart], *map(escaped, row[len(row) - apart :])]
        for row in _rows(comparison, shown_in_tex, "\\textbf{{{}}}".format)
    ]
    shared = shared_line(comparison)
    return tabular(names, rows, [shared] if shared else [])


def tabular(heads: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> str:
    """A booktabs table of cells that are LaTeX already; heads and notes are words."""
    lines = [" & ".join(row) + r" \\" for row in rows]
    if notes:
        lines.append(r"\midrule")
    lines += [rf"\multicolumn{{{len(heads)}}}{{l}}{{\footnotesize {escaped(note)}}} \\" for note in notes]
    body = [
        rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
        r"\toprule",
        " & ".join(map(escaped, heads)) + r" \\",
        r"\midrule",
        *lines,
        r"\bottomrule",
    ]
    return "\n".join([*body, r"\end{tabular}"]) + "\n"


def escaped(text: str) -> str:
    for special in "_%&#":
        text = text.replace(special, f"\\{special}")
    return text.replace("<", "$<$").replace(">", "$>$")


@dataclass(frozen=True)
class Line:
    """A line of the table: what runs were compared with (`group` is None), or a group.

    Attributes:
        values: the average, then each task.
        best: which of them are the best of their column, or cannot be told apart from it.
    """

    name: str
    group: Group | None
    values: tuple[Spread, ...]
    best: tuple[bool, ...]


def lines(comparison: Comparison, value: str = "accuracy") -> list[Line]:
    """Every line of the table, baselines first. `value` is accuracy or agreement."""
    found: list[tuple[str, Group | None, list[Spread]]] = [
        *((name, None, values) for name, values in _baselines(comparison, value)),
        *((group.name, group, group_columns(comparison, group, value)) for group in comparison.groups),
    ]
    equals = comparison.among_as_many_seeds()
    compared = [not is_reference(name) and (group is None or group in equals) for name, group, _ in found]
    evidence = comparison.evidence if value == "accuracy" else Evidence()
    rivals = [line for line, counts in zip(found, compared, strict=True) if counts]
    best = [
        best_of({name: values[i].mean for name, _, values in rivals}, evidence, i)
        for i in range(1 + len(comparison.tasks))
    ]
    return [
        Line(name, group, tuple(values), tuple(name in names for names in best))
        for name, group, values in found
    ]


def best_of(values: Mapping[str, float | None], evidence: Evidence, column: int = 0) -> set[str]:
    """The names of the largest value of a column, and of those whose difference to it may be chance: none is shown as
    better than what it cannot be told apart from. Without predictions, of the largest value alone.

    Args:
        column: 0 for the average, then the tasks.
    """
    known = {name: value for name, value in values.items() if value is not None}
    highest = max(known.values(), default=None)
    found = {name for name, value in known.items() if value == highest}
    judged = evidence.correct.keys() & known.keys()
    return found | {
        name
        for name in judged - found
        if any(not evidence.difference(top, name, column).told_apart for top in found & judged)
    }


def is_reference(name: str) -> bool:
    """The experts themselves: what others are measured by, never the best."""
    return name in (_REFERENCE, shown(_REFERENCE))


def _rows(
    comparison: Comparison, show: Callable[[Spread], str], bold: Callable[[str], str]
) -> list[list[str]]:
    """Name and cells of every line, baselines first, the best of each column marked."""
    known = {g.name: published_of(g) for g in comparison.groups}
    apart = apart_in(comparison)
    rows = []
    for line in lines(comparison):
        cells = [bold(show(v)) if best else show(v) for v, best in zip(line.values, line.best, strict=True)]
        own = {} if line.group is None else of_group(line.group)
        rows.append([line.name, *cells, *(own.get(name, "") for name in apart)])
        theirs = known.get(line.name)
        if theirs is not None and line.group is not None:
            published = _published_row(theirs, accuracy_of(line.group), comparison.tasks, show)
            rows.append([*published, *[""] * len(apart)])
    return rows


def _published_row(
    known: Published, ours: dict[str, float | None], tasks: Sequence[str], show: Callable[[Spread], str]
) -> list[str]:
    return [
        f"- published ({known.source}): {known.words(ours)}",
        show(Spread(known.average)),
        *(show(Spread((known.tasks or {}).get(task))) for task in tasks),
    ]


def group_columns(comparison: Comparison, group: Group, value: str = "accuracy") -> list[Spread]:
    """The average, then each task."""
    average = group.spread("average" if value == "accuracy" else value)
    return [average, *(group.of_task(task, value) for task in comparison.tasks)]


def _baselines(comparison: Comparison, value: str) -> list[tuple[str, list[Spread]]]:
    """What every run was compared with, once, unless it is among the groups itself."""
    if not comparison.groups:
        return []
    own = {group.name for group in comparison.groups}
    found = comparison.groups[0].runs[0].results.baselines
    shares = {name: getattr(found[name], value) for name in BASELINES if name in found and name not in own}
    return [
        (shown(name), [Spread(mean(list(known.values()))), *(Spread(known.get(t)) for t in comparison.tasks)])
        for name, known in shares.items()
    ]
