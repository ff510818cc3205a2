"""Intervals, standard errors and tests as tables: every model against the best one, and every two models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table

from adamerge.report.collect import Comparison, Spread
from adamerge.report.comparison import Line, escaped, is_reference, lines, table_in_markdown, tabular
from adamerge.report.evidence import Difference, Pair
from adamerge.report.made import made_of
from adamerge.report.names import percent
from adamerge.report.significance import LEVEL, REPLICATES, SEED, standard_error, standard_error_of_mean

HEADS = ("95 % interval", "standard error", "to the best", "p")
_MOST = 12  # methods of a matrix that can be read as text
_NOTHING = "intervals and tests: no run here keeps its predictions; evaluate run=<folder> writes them (predictions.npz)"


@dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
        interval: of its average; None where its predictions are not known.
        error: binomial standard error of its average; None where there is none.
        best: whether it is the best, which the others are compared with.
        behind: its average less the best one's; None of the best and of what cannot be paired with it.
        p: McNemar's mid-p against the best, all tasks' pictures together, corrected for the number of pairs.
    """

    name: str
    average: Spread
    interval: tuple[float, float] | None
    error: float | None
    best: bool
    behind: Difference | None
    p: float | None


def rows(comparison: Comparison) -> list[Row]:
    """A row per line of the accuracy table, whose average is known."""
    evidence = comparison.evidence
    known = [line for line in lines(comparison) if line.values[0].mean is not None]
    best = best_line(known)
    found = []
    for line in known:
        judged, is_best = line.name in evidence.correct, line is best
        paired = best is not None and not is_best and {line.name, best.name} <= evidence.correct.keys()
        found.append(
            Row(
                line.name,
                line.values[0],
                evidence.interval(line.name) if judged else None,
                errors_of(comparison, line.values)[0],
                is_best,
                evidence.difference(line.name, best.name) if paired and best else None,
                pair_of(comparison, line.name, best.name)[0].corrected if paired and best else None,
            )
        )
    return found


def best_line(found: Sequence[Line]) -> Line | None:
    """The line with the highest average among those that may be the best."""
    marked = [line for line in found if line.best[0]]
    return max(marked, key=lambda line: line.values[0].mean or 0.0, default=None)


def pair_of(comparison: Comparison, first: str, second: str) -> tuple[Pair, bool]:
    """The pair, and whether it stands the other way round."""
    pairs = comparison.evidence.pairs
    return (pairs[first, second], False) if (first, second) in pairs else (pairs[second, first], True)


def errors_of(comparison: Comparison, values: Sequence[Spread]) -> list[float | None]:
    """Binomial standard errors of the average and of each task's accuracy, by the numbers of test pictures; None where
    an accuracy is not known."""
    sizes = pictures_of(comparison).values()
    shares = [value.mean for value in values[1:]]
    errors = [None if p is None else standard_error(p, n) for p, n in zip(shares, sizes, strict=True)]
    known = [error for error in errors if error is not None]
    return [standard_error_of_mean(known) if len(known) == len(errors) else None, *errors]


def pictures_of(comparison: Comparison) -> dict[str, int]:
    """{task: test pictures that are scored}."""
    tasks = comparison.groups[0].runs[0].results.tasks
    return {task: tasks[task].n for task in comparison.tasks}


def pictures_line(comparison: Comparison) -> str:
    return "Test pictures: " + ", ".join(f"{task} {n:,}" for task, n in pictures_of(comparison).items()) + "."


def explained(comparison: Comparison) -> str:
    """How the numbers were made."""
    several = any(len(group.runs) > 1 for group in comparison.groups)
    return (
        f"{100 * LEVEL:.0f} % intervals: {REPLICATES:,} bootstrap draws of the pictures within each task"
        f"{', and of the seeds' if several else ''}, seed {SEED}; standard error: binomial, of the pictures. "
        "Differences are paired picture by picture; p: McNemar's mid-p over the pictures of all tasks"
        f"{', of one run each (the first seed that both have)' if several else ''}, corrected for the number of pairs "
        "(Holm). Bold: the best, and what a paired 95 % interval cannot tell from it."
    )


def refused_lines(comparison: Comparison) -> list[str]:
    """What cannot be judged, and why; nothing of pictures without labels."""
    evidence = comparison.evidence
    labeled = any(group.spread("average").mean is not None for group in comparison.groups)
    if not evidence.correct and not evidence.refused:
        return [_NOTHING] if labeled else []
    return list(evidence.refused)


def interval_text(found: tuple[float, float] | None) -> str:
    return "–" if found is None else f"[{percent(found[0])}, {percent(found[1])}]"


def difference_text(found: Difference | None) -> str:
    if found is None:
        return ""
    return f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def p_text(p: float | None) -> str:
    return "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def cells(row: Row) -> list[str]:
    """Beside the name."""
    error = "–" if row.error is None else f"{100 * row.error:.2f}"
    behind = "best" if row.best else difference_text(row.behind)
    return [interval_text(row.interval), error, behind, p_text(row.p)]


def console_evidence(comparison: Comparison) -> Table | None:
    """Every model against the best one; nothing where no predictions are known."""
    if not comparison.evidence.correct:
        return None
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.title, table.title_justify = f"{comparison.title}: average, test pictures as drawn", "left"
    table.caption, table.caption_justify = explained(comparison), "left"
    table.add_column("method", overflow="fold", max_width=24)
    for head in ("95 % interval", "± SE", "to the best", "p"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows(comparison):
        table.add_row(row.name, *cells(row))
    return table


def evidence_in_markdown(comparison: Comparison) -> str:
    """Both tables; what cannot be judged below."""
    text = [f"\n{pictures_line(comparison)}\n"]
    if comparison.evidence.correct:
        found = [[row.name, *cells(row)] for row in rows(comparison)]
        text += [f"\n{explained(comparison)}\n", *_lines(table_in_markdown(["method", *HEADS], found))]
        text += _matrix(comparison, lambda names, body: _lines(table_in_markdown(names, body)))
    text += [f"\n{line}.\n" for line in refused_lines(comparison)]
    return "".join(text)


def _lines(table: Sequence[str]) -> list[str]:
    return ["\n", *(f"{line}\n" for line in table)]


def _matrix(
    comparison: Comparison,
    write: Callable[[Sequence[str], list[list[str]]], list[str]],
    otherwise: str = "\n{}\n",
) -> list[str]:
    """The matrix, where so many methods can be read; else where it stands."""
    names, body = matrix(comparison)
    if len(names) - 1 > _MOST:
        return [otherwise.format(f"Every two of the {len(names) - 1} methods: compare.json and report.html.")]
    return write(names, body)


def matrix(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """(heads, rows): by how much the row's model is more accurate on average than the column's, and p."""
    names = list(comparison.evidence.correct)
    body = [[name, *(matrix_cell(comparison, name, other) for other in names)] for name in names]
    return ["row less column", *names], body


def matrix_cell(comparison: Comparison, first: str, second: str) -> str:
    if first == second:
        return ""
    pair, turned = pair_of(comparison, first, second)
    own = pair.difference
    found = Difference(-own.value, -own.high, -own.low) if turned else own
    return f"{difference_text(found)}, p {p_text(pair.corrected)}"


def evidence_in_latex(comparison: Comparison) -> str:
    """The table against the best one, and the matrix, as booktabs tables, with comments for their captions; empty
    without predictions."""
    if not comparison.evidence.correct:
        return ""
    found = [[row.name, *cells(row)] for row in rows(comparison)]
    text = [f"% {line}\n" for line in (explained(comparison), pictures_line(comparison))]
    text.append(_in_latex(["method", *HEADS], found))
    text += _matrix(comparison, lambda names, body: ["\n", _in_latex(names, body)], "\n% {}\n")
    return "".join(text)


def _in_latex(names: Sequence[str], body: list[list[str]]) -> str:
    return tabular(names, [[escaped(cell) for cell in row] for row in body])


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Everything in plain numbers: shares between 0 and 1."""
    runs = [run for group in comparison.groups for run in group.runs]
    evidence, groups = comparison.evidence, {group.name: group for group in comparison.groups}
    return {
        "suite": comparison.suite,
        "backbone": comparison.backbone,
        "stream": comparison.stream,
        "apart": comparison.apart,
        "pictures": pictures_of(comparison),
        "made": made_of(runs),
        "bootstrap": {"draws": REPLICATES, "seed": SEED, "level": LEVEL},
        "methods": [
            {
                "name": line.name,
                "reference": is_reference(line.name),
                "seeds": list(groups[line.name].seeds) if line.name in groups else [],
                "average": _number(comparison, line, 0),
                "tasks": {t: _number(comparison, line, i) for i, t in enumerate(comparison.tasks, start=1)},
            }
            for line in lines(comparison)
        ],
        "pairs": [
            {
                "first": first,
                "second": second,
                "difference": vars(pair.difference),
                "mcnemar": vars(pair.pooled) | {"mid_corrected": pair.corrected},
                "tasks": {task: vars(test) for task, test in pair.tests.items()},
            }
            for (first, second), pair in evidence.pairs.items()
        ],
        "refused": refused_lines(comparison),
    }


def _number(comparison: Comparison, line: Line, column: int) -> dict[str, Any]:
    value, judged = line.values[column], line.name in comparison.evidence.correct
    low, high = comparison.evidence.interval(line.name, column) if judged else (None, None)
    return {
        "mean": value.mean,
        "sd_over_seeds": value.sd,
        "standard_error": errors_of(comparison, line.values)[column],
        "low": low,
        "high": high,
        "best": line.best[column],
    }
