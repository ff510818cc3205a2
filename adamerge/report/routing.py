"""Tables of the task unknown: how often a router finds an image's task, and the accuracy under the head it leads to."""

from __future__ import annotations

from rich import box
from rich.table import Table

from adamerge.report.collect import Comparison, Group
from adamerge.report.comparison import spread, table_in_markdown
from adamerge.report.names import percent
from adamerge.tracking.results import ROUTED, ROUTERS, Results

HEADS = ("router", "task found", "accuracy", "task given", "Hits@3", "Hits@5", "seeds", "looks at")
WORDS = "The task of an image unknown: images whose task is found, and whose task and class are (%)."
Rows = list[tuple[str, list[tuple[str, float | None]]]]  # (method, [(what is shown, the number)])


def routing_lines(results: Results) -> list[str]:
    """A line for each router that a run was evaluated by."""
    return [
        f"task unknown, {name}: task found {percent(found.average('routed'))}, accuracy "
        f"{percent(found.average('accuracy'))}, Hits@3 {percent(found.average('hits3'))}, Hits@5 "
        f"{percent(found.average('hits5'))}; looks at {found.looks_at}"
        for name, found in results.routing.items()
    ]


def routing_rows(comparison: Comparison) -> Rows:
    """A row for each method and router: means over the tasks and the seeds that were evaluated so."""
    return [
        (group.name, _cells(group, name))
        for group in comparison.groups
        for name in ROUTERS
        if group.routings(name)
    ]


def _cells(group: Group, name: str) -> list[tuple[str, float | None]]:
    known = group.routings(name)
    found = {value: group.routed(name, value) for value in ROUTED} | {"given": group.spread("average")}
    numbers = [(spread(found[v]), found[v].mean) for v in ("routed", "accuracy", "given", "hits3", "hits5")]
    looks_at = " or ".join(dict.fromkeys(own.looks_at for own in known))
    return [(name, None), *numbers, (str(len(known)), float(len(known))), (looks_at, None)]


def routing_in_markdown(comparison: Comparison) -> str:
    """The table of a comparison; empty where no run was evaluated so."""
    rows = [[name, *(text for text, _ in cells)] for name, cells in routing_rows(comparison)]
    if not rows:
        return ""
    return "\n".join(["", WORDS, "", *table_in_markdown(["method", *HEADS], rows)]) + "\n"


def routing_console(comparison: Comparison) -> Table | None:
    """The same as far as 80 columns have room."""
    rows = routing_rows(comparison)
    if not rows:
        return None
    table = Table(
        title=f"{comparison.title}: task unknown", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("method", max_width=24)
    for head in HEADS[:-2]:
        table.add_column(head, justify="left" if head == "router" else "right", no_wrap=True)
    for name, cells in rows:
        table.add_row(name, *(text for text, _ in cells[:-2]))
    return table
