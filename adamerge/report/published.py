"""Published accuracies (published.yaml) beside ours. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from adamerge.tracking.results import Results

_FILE = Path(__file__).with_suffix(".yaml")
# The family of checkpoints of a run's config -> the lineage of published numbers.
_LINEAGES = {
    "fusion_bench": "hf",
    "task_vectors": "open_clip",
    "tinting": "open_clip",
    "tall_masks": "open_clip",
}
# Tables that `convert` makes of the published coefficients -> the method that learned them.
_TABLES_OF_COEFFICIENTS = {
    "lw_adamerging": "adamerging_layerwise",
    "lw_adamergingpp": "adamerging_layerwise_pp",
    "tw_adamerging": "adamerging_taskwise",
    "tw_adamergingpp": "adamerging_taskwise_pp",
}
_STATIC = ("none", "ties")  # what a run without a method is called: by its rule
Verdict = Literal["within", "below", "above", "not judged"]


@dataclass(frozen=True)
class Published:
    """One method's published accuracies, shares between 0 and 1.

    Attributes:
        method: our name of it.
        over: the rule or learned coefficients below it, where the table has several.
        tolerance: how far a reproduction's average may be off.
        tasks: per task, where published; `unseen` likewise.
        confirmed: whether a run is judged by it.
        note: what is odd about it.
    """

    method: str
    average: float
    tolerance: float
    source: str
    over: str | None = None
    tasks: Mapping[str, float] | None = None
    unseen: Mapping[str, float] | None = None
    confirmed: bool = True
    note: str = ""

    def verdict(self, ours: float | None) -> Verdict:
        """Whether our average is within the tolerance, the edge included."""
        if ours is None or not self.confirmed:
            return "not judged"
        # Published numbers have two decimals: a rounding error of ours must not decide.
        if abs(ours - self.average) <= self.tolerance + 1e-9:
            return "within"
        return "below" if ours < self.average else "above"


def published(results: Results, config: Mapping[str, Any]) -> Published | None:
    """What was published for a run's method, backbone, tasks and family of checkpoints.

    Args:
        config: the run's config by dotted keys.
    """
    lineage = _LINEAGES.get(str(config.get("checkpoints.name")))
    for table in _tables():
        named = (table["suite"], table["backbone"], table["lineage"])
        if named != (results.suite, results.backbone, lineage) or set(table["tasks"]) != set(results.tasks):
            continue
        for row in table["rows"]:
            if (row["method"], row.get("over")) in _names(results, config):
                return _row(row, table)
    return None


def every_row() -> list[tuple[dict[str, Any], Published]]:
    """All rows with the tables they stand in."""
    return [(table, _row(row, table)) for table in _tables() for row in table["rows"]]


def _names(results: Results, config: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """The (method, what lies below it) under which a table may list a run; None: what belongs to the method itself."""
    start = config.get("start")
    if start is not None:
        table = _TABLES_OF_COEFFICIENTS.get(Path(str(start)).stem.partition("-")[0])
        if results.method in _STATIC and table is not None:
            return [(table, None)]  # the authors' coefficients, evaluated without training
        text = str(start).replace("lw_adamergingpp", "").replace("adamerging_layerwise_pp", "")
        learned = "adamerging_layerwise" in text or "lw_adamerging" in text
        return [(results.method, "adamerging_layerwise")] if learned else []
    own = {"none", results.method} | ({"ties"} if results.method.endswith("_pp") else set())
    if results.rule in own:
        return [(results.method, None), (results.method, "task_arithmetic")]
    return [(results.method, results.rule)]


def _row(row: Mapping[str, Any], table: Mapping[str, Any]) -> Published:
    def shares(tasks: str) -> dict[str, float] | None:
        values = row.get(tasks)
        return {t: v / 100 for t, v in zip(table[tasks], values, strict=True)} if values else None

    return Published(
        method=row["method"],
        average=row["average"] / 100,
        tolerance=row["tolerance"] / 100,
        source=row["source"],
        over=row.get("over"),
        tasks=shares("tasks"),
        unseen=shares("unseen"),
        confirmed=row.get("confirmed", True),
        note=row.get("note", ""),
    )


@cache
def _tables() -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return content
