"""Choosing among merged models without labels."""

from __future__ import annotations

from rich import box
from rich.table import Table

from adamerge.report.collect import Comparison, Group
from adamerge.report.names import percent

_REFERENCES = ("individual",)  # not a merged model


def ranked(comparison: Comparison) -> list[Group]:
    """The groups that have an estimate, the best estimate first. No label is looked at."""
    merged = [group for group in comparison.groups if group.name not in _REFERENCES]
    known = [group for group in merged if group.spread("estimate").mean is not None]
    return sorted(known, key=lambda group: -(group.spread("estimate").mean or 0.0))


def pick_table(comparison: Comparison) -> Table:
    """Estimated accuracies with their intervals, what they are made of, and the accuracy where it is known."""
    title = f"{comparison.title}: accuracy estimated without labels"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("method", overflow="fold", min_width=16, max_width=24)
    for head in ("estimate", "interval", "agrees", "entropy", "accuracy"):
        table.add_column(head, justify="right", no_wrap=True)
    for group in ranked(comparison):
        low, high = (percent(group.spread(name).mean) for name in ("estimate_low", "estimate_high"))
        entropy = group.spread("entropy").mean
        table.add_row(
            group.name,
            percent(group.spread("estimate").mean),
            f"{low} to {high}",
            percent(group.spread("agreement").mean),
            "" if entropy is None else f"{entropy:.2f}",
            percent(group.spread("average").mean),
        )
    return table


def pick(comparison: Comparison) -> str:
    """The method to take among those of as many seeds, and which others the intervals cannot tell from it."""
    equals = comparison.among_as_many_seeds()
    groups = [group for group in ranked(comparison) if group in equals]
    if not groups:
        return "No run here has an estimate: they are older than it. Delete their results.json and run them again."
    best = groups[0]
    floor = best.spread("estimate_low").mean or 0.0
    rivals = [group.name for group in groups[1:] if (group.spread("estimate_high").mean or 0.0) >= floor]
    text = f"pick: {best.name}, estimated accuracy {percent(best.spread('estimate').mean)}"
    text += f"; not told apart from it: {', '.join(rivals)}" if rivals else ""
    if fewer := [group.name for group in ranked(comparison) if group not in equals]:
        text += f"; not in the choice, of fewer seeds: {', '.join(fewer)}"
    return text
