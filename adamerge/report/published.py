"""Published accuracies (published.yaml) beside ours. Needs no torch.

A number is a target for a run of the same preset on experts of the same lineage; beside any other it is only shown,
with what differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from adamerge.report.names import percent
from adamerge.tracking.preset import AgainstPreset, Start
from adamerge.tracking.results import Results, mean

_FILE = Path(__file__).with_suffix(".yaml")
_STATIC = ("none", "ties")  # what a run without a method is called: by its rule
# The rule below learned coefficients.
_RULE_BELOW = {"adamerging_layerwise_pp": "ties", "adamerging_taskwise_pp": "ties"}
_SHOWN = 3  # deviations that are named
Verdict = Literal["within", "below", "above", "not judged"]
Accuracy = Mapping[str, float | None]


@dataclass(frozen=True)
class Published:
    """One method's published accuracies, shares between 0 and 1.

    Attributes:
        method: the preset that they were made by.
        over: the rule or learned coefficients below it, where the table has several.
        options: what the published run changed in the preset.
        printed: the average that the source prints.
        tolerance: how far a reproduction's mean may be off.
        tasks: per task, where published; `unseen` likewise.
        apart: tolerances of the tasks whose splits were never published.
        confirmed: whether the number is a target at all.
        note: what is odd about it.
        differs: why this run is not judged by it; empty where it is.
        allows: options whose value makes no difference here.
    """

    method: str
    printed: float
    tolerance: float
    source: str
    over: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    tasks: Mapping[str, float] | None = None
    unseen: Mapping[str, float] | None = None
    apart: Mapping[str, float] = field(default_factory=dict)
    confirmed: bool = True
    note: str = ""
    differs: str = ""
    allows: tuple[str, ...] = ()

    @property
    def average(self) -> float:
        """The mean of the tasks' numbers; the printed average, often truncated, only where there are no others."""
        return sum(self.tasks.values()) / len(self.tasks) if self.tasks else self.printed

    @property
    def reason(self) -> str:
        """Why no run, or not this one, is judged by it."""
        return self.differs if self.confirmed else self.note or "not confirmed"

    def verdict(self, ours: Accuracy) -> Verdict:
        """Whether the mean over the tasks with known splits is within the tolerance, the edge included.

        Where only an average was published it is that of all tasks, its tolerance wider by the share of those apart.
        """
        if self.reason:
            return "not judged"
        if self.tasks is None:
            room = sum(self.apart.get(task, 0.0) for task in ours) / max(1, len(ours))
            return _verdict(mean(list(ours.values())), self.printed, self.tolerance + room)
        judged = [task for task in self.tasks if task not in self.apart]
        theirs = sum(self.tasks[task] for task in judged) / len(judged)
        return _verdict(mean([ours.get(task) for task in judged]), theirs, self.tolerance)

    def verdicts_apart(self, ours: Accuracy) -> dict[str, Verdict]:
        """Of each task whose split was never published, by its own tolerance."""
        if self.reason or self.tasks is None:
            return {}
        return {
            task: _verdict(ours.get(task), self.tasks[task], tolerance)
            for task, tolerance in self.apart.items()
            if task in self.tasks
        }

    def words(self, ours: Accuracy) -> str:
        """The verdict in words."""
        verdict = self.verdict(ours)
        if verdict == "not judged":
            return f"not judged: {self.reason}" if self.reason else "not judged"
        parts = [
            f"ours is {verdict} {percent(self.tolerance)}" if verdict == "within" else f"ours is {verdict}"
        ]
        parts += [
            f"{task} {told} {percent(self.apart[task])}" if told == "within" else f"{task} {told}"
            for task, told in self.verdicts_apart(ours).items()
        ]
        return ", ".join(parts)


def published(results: Results, config: Mapping[str, Any], preset: AgainstPreset | None) -> Published | None:
    """What was published for a run's method, backbone, tasks and lineage of experts; with what differs, if anything.

    Args:
        config: the run's config by dotted keys.
        preset: how the run differs from its preset; None where it does not say.
    """
    lineage = _data()["families"].get(str(config.get("checkpoints.name")))
    if lineage is None:
        return None
    start = None if preset is None else preset.start
    for table in _tables():
        made_here = results.suite == table.get("ours")
        if (table["backbone"], table["lineage"]) != (results.backbone, lineage):
            continue
        if not (made_here or results.suite == table["suite"]) or set(table["tasks"]) != set(results.tasks):
            continue
        for name, differs in _names(results, config, start):
            rows = [_row(row, table) for row in table["rows"] if (row["method"], row.get("over")) == name]
            if rows:
                differs = differs or ("the pictures were corrupted here" if made_here else "")
                return _chosen(rows, preset, differs)
    return None


def every_row() -> list[tuple[dict[str, Any], Published]]:
    """All rows with the tables they stand in."""
    return [(table, _row(row, table)) for table in _tables() for row in table["rows"]]


def families() -> dict[str, str | None]:
    """The lineage of each family of checkpoints; None where no number was published for it."""
    found: dict[str, str | None] = _data()["families"]
    return found


def _chosen(rows: list[Published], preset: AgainstPreset | None, differs: str) -> Published:
    """The row whose options the run has, and no others; else the plain one, with what differs."""
    if preset is None:
        return replace(rows[0], differs=differs or "the run does not say how it differs from its preset")
    for row in sorted(rows, key=lambda row: not row.confirmed):
        left = {key: ours for key, (ours, _) in preset.deviations.items() if key not in row.allows}
        if left == dict(row.options):
            return replace(row, differs=differs)
    plain = next((row for row in rows if not row.options), rows[0])
    return replace(plain, differs=_told(preset.deviations) or differs)


def _told(deviations: Mapping[str, Any]) -> str:
    """method.schedule.steps=50 (preset: 500), ..."""
    texts = [f"{key}={_text(ours)} (preset: {_text(theirs)})" for key, (ours, theirs) in deviations.items()]
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more


def _text(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _names(
    results: Results, config: Mapping[str, Any], start: Start | None
) -> list[tuple[tuple[str, str | None], str]]:
    """The (method, what lies below it) under which a table may list a run, each with what else differs."""
    method, rule = results.method, results.rule
    given = config.get("start")
    if given is not None:
        learned, differs = _learned(results, config, start)
        if learned is None:
            told = f"start={given}"
            return [((method, "adamerging_layerwise"), told), *((n, told) for n in _by_rule(method, rule))]
        if rule != _RULE_BELOW.get(learned, "none"):
            return []
        if method in _STATIC:
            return [((learned, None), differs)]  # the authors' coefficients, evaluated without training
        return [((method, learned), differs)]
    names = [(name, "") for name in _by_rule(method, rule)]
    # The same method with the other code's settings.
    other = method.removesuffix("_fb") if method.endswith("_fb") else f"{method}_fb"
    return [*names, *((n, f"the published preset is {other}") for n in _by_rule(other, rule))]


def _by_rule(method: str, rule: str) -> list[tuple[str, str | None]]:
    own = {"none", method, *([_RULE_BELOW[method]] if method in _RULE_BELOW else [])}
    return [(method, None), (method, "task_arithmetic")] if rule in own else [(method, rule)]


def _learned(results: Results, config: Mapping[str, Any], start: Start | None) -> tuple[str | None, str]:
    """The method whose coefficients a run starts from, by what the run has written down, and what differs in them."""
    if start is None:
        return None, ""
    known = _data()["coefficients"].get(start.digest)
    if known is not None and known["backbone"] == results.backbone:
        return str(known["method"]), ""
    if start.run is None:
        return None, ""
    mine = {key: config.get(f"{key}.name") for key in ("suite", "checkpoints")} | {
        "backbone": results.backbone
    }
    if any(start.run.get(key) != value for key, value in mine.items()) or start.run.get("start") is not None:
        return None, ""
    if set(start.run.get("tasks") or ()) != set(results.tasks):
        return None, ""
    method = str(start.run["method"])
    if start.run.get("rule") != _RULE_BELOW.get(method, "none"):
        return None, ""
    if start.deviations is None:
        return method, "the run that it starts from does not say how it differs from its preset"
    return method, f"start: {_told(start.deviations)}" if start.deviations else ""


def _verdict(ours: float | None, theirs: float, tolerance: float) -> Verdict:
    if ours is None:
        return "not judged"
    # Published numbers have two decimals: a rounding error of ours must not decide.
    if abs(ours - theirs) <= tolerance + 1e-9:
        return "within"
    return "below" if ours < theirs else "above"


def _row(row: Mapping[str, Any], table: Mapping[str, Any]) -> Published:
    def shares(tasks: str) -> dict[str, float] | None:
        values = row.get(tasks)
        return {t: v / 100 for t, v in zip(table[tasks], values, strict=True)} if values else None

    return Published(
        method=row["method"],
        printed=row["printed"] / 100 if "printed" in row else _mean_of(row["tasks"]) / 100,
        tolerance=row["tolerance"] / 100,
        source=row["source"],
        over=row.get("over"),
        options=row.get("options", {}),
        tasks=shares("tasks"),
        unseen=shares("unseen"),
        apart={task: points / 100 for task, points in _data()["apart"].items()},
        confirmed=row.get("confirmed", True),
        note=row.get("note", ""),
        allows=tuple(row.get("allows", ())),
    )


def _mean_of(values: list[float]) -> float:
    return sum(values) / len(values)


def _tables() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = _data()["tables"]
    return found


@cache
def _data() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return content
