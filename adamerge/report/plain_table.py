"""The CSV of `compare`: a line per method and task, with plain numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from adamerge.report.collect import Comparison, Group
from adamerge.report.comparison import CALIBRATION, accuracy_of, group_columns, published_of
from adamerge.report.evidence_tables import errors_of, pictures_of
from adamerge.report.facts import FACTS, of_group
from adamerge.tracking.results import ROUTED, ROUTERS

_SURE = (
    "pictures",
    *(f"{what}_{part}" for what in ("accuracy", "average") for part in ("standard_error", "low", "high")),
)


def csv_table(comparisons: Sequence[Comparison]) -> str:
    """One line per group with plain numbers: shares between 0 and 1, seconds, bytes."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    shares = ("average", "normalized_average", "agreement")
    plain = (*shares, "trainable_parameters", "peak_memory_bytes", "bytes")
    theirs = [f"published_{name}" for name in ("average", "tolerance", "verdict", "words", "accuracy")]
    first_half = ("suite", "backbone", "method", "rule", "seeds", *plain, "average_sd")
    parts = ("adapted_average", "held_out_average", "gap", "gap_sd")
    per_task = ("task", "accuracy", "accuracy_sd")
    routing = [f"{name}_{value}" for name in ROUTERS for value in ROUTED]
    told = [name.replace(" ", "_") for name in FACTS]
    cost_heads = ("adapt_seconds", "evaluate_seconds")
    writer.writerow(
        (*first_half, *cost_heads, *per_task, *theirs, *told, *parts, *CALIBRATION, *_SURE, *routing)
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
                ours = accuracy_of(group)
                judged = [known.average, known.tolerance, known.verdict(ours), known.words(ours)]
            for task in comparison.tasks:
                value = group.accuracy(task)
                row = [*own, *numbers, group.spread("average").sd, *cost, task, value.mean, value.sd]
                there = known.tasks.get(task) if known and known.tasks else None
                writer.writerow(
                    [
                        *row,
                        *judged,
                        there,
                        *_protocol_cells(group, task),
                        *_sure_cells(comparison, group, task),
                        *(group.routed(name, value, task).mean for name in ROUTERS for value in ROUTED),
                    ]
                )
    return out.getvalue()


def _protocol_cells(group: Group, task: str) -> list[str | float | None]:
    """The facts, both parts' averages, and the task's calibration."""
    own, gap = of_group(group), group.spread("gap")
    parts = [group.spread("adapted_average").mean, group.spread("held_out_average").mean, gap.mean, gap.sd]
    return [
        *(own.get(name, "") for name in FACTS),
        *parts,
        *(group.of_task(task, name).mean for name in CALIBRATION),
    ]


def _sure_cells(comparison: Comparison, group: Group, task: str) -> list[float | int | None]:
    """Pictures of the task, and of its accuracy and of the average the binomial standard error and the interval."""
    columns = (1 + comparison.tasks.index(task), 0)
    judged = group.name in comparison.evidence.correct
    cells: list[float | int | None] = [pictures_of(comparison)[task]]
    for column in columns:
        low, high = comparison.evidence.interval(group.name, column) if judged else (None, None)
        cells += [errors_of(comparison, group_columns(comparison, group))[column], low, high]
    return cells
