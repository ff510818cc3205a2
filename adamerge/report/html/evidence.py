"""How sure the differences are: intervals and tests against the best, and of every two methods."""

from __future__ import annotations

from adamerge.report.evidence_tables import HEADS, cells, explained, matrix_cell, pair_of, refused_lines, rows
from adamerge.report.html.markup import Markup, joined, tag
from adamerge.report.html.tables import Cell, named, scrolling, sortable
from adamerge.report.html.view import View

_WORDS = "Row less column: difference of the averages in points, its paired 95 % interval, and p. Bold: told apart."


def evidence(view: View) -> Markup | None:
    """Both tables, and what cannot be judged; None where no run keeps predictions."""
    own = view.comparison.evidence
    if not own.correct and not own.refused:
        return None
    refused = refused_lines(view.comparison)
    told = [tag("ul", *(tag("li", line) for line in refused))] if refused else []
    if not own.correct:
        return joined(told)
    return joined([_against_the_best(view), _matrix(view), *told])


def _against_the_best(view: View) -> Markup:
    found = []
    for row in rows(view.comparison):
        values = (
            row.average.mean,
            row.error,
            None if row.behind is None else row.behind.value,
            row.p,
        )
        shown = [Cell(text, value) for text, value in zip(cells(row), values, strict=True)]
        found.append((row.name, shown))
    return sortable(explained(view.comparison), HEADS, found)


def _matrix(view: View) -> Markup:
    names = list(view.comparison.evidence.correct)
    head = tag("tr", *(tag("th", named(name), scope="col") for name in ("row less column", *names)))
    body = [
        tag("tr", tag("th", named(name), scope="row"), *(_cell(view, name, other) for other in names))
        for name in names
    ]
    table = scrolling(_WORDS, tag("thead", head), tag("tbody", *body))
    return tag("details", tag("summary", "Every two methods"), table)


def _cell(view: View, first: str, second: str) -> Markup:
    text = matrix_cell(view.comparison, first, second)
    if first != second and pair_of(view.comparison, first, second)[0].difference.told_apart:
        return tag("td", tag("strong", text))
    return tag("td", text)
