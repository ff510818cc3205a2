"""How a number came about: protocol, whether the task is known, who chose the scale, whose experts. In every table."""

from __future__ import annotations

from collections.abc import Callable

from adamerge.report.collect import Comparison, Group
from adamerge.tracking.results import INDEPENDENT, Results

_YES = {True: "yes", False: "no", None: None}
FACTS: dict[str, Callable[[Results], str | None]] = {
    "protocol": lambda results: results.protocol,
    "task known": lambda results: _YES[results.task_known],
    "scale chosen by": lambda results: results.chooser,
    "experts": lambda results: results.lineage,
    "stream": lambda results: None if results.stream == INDEPENDENT else results.stream,
    "origin": lambda results: None if results.origin == "base" else results.origin,
}
_SHORT = {"transductive": "trans.", "inductive": "induct.", "none": "–", "label_free": "label-free"}
_HEADS = {"protocol": "proto", "task known": "task", "scale chosen by": "chosen"}


def facts(results: Results) -> dict[str, str]:
    """What is known of a run; nothing of one from before it was noted."""
    found = {name: of(results) for name, of in FACTS.items()}
    return {name: value for name, value in found.items() if value}


def facts_line(results: Results) -> str:
    return _joined(facts(results))


def shared_line(comparison: Comparison) -> str:
    """What all groups of a comparison have in common."""
    apart = apart_in(comparison)
    common = facts(comparison.groups[0].runs[0].results) if comparison.groups else {}
    return _joined({name: value for name, value in common.items() if name not in apart})


def apart_in(comparison: Comparison) -> list[str]:
    """The facts in which groups differ: each is a column then."""
    known = [of_group(group) for group in comparison.groups]
    return [name for name in FACTS if len({own.get(name, "") for own in known}) > 1]


def of_group(group: Group) -> dict[str, str]:
    """The facts of a group; where its runs differ in one, all that there are."""
    found: dict[str, dict[str, None]] = {}
    for run in group.runs:
        for name, value in facts(run.results).items():
            found.setdefault(name, {})[value] = None
    return {name: " or ".join(values) for name, values in found.items()}


def short(value: str) -> str:
    """For a narrow column."""
    return _SHORT.get(value, value)


def head(name: str) -> str:
    """The name of a narrow column."""
    return _HEADS.get(name, name)


def _joined(found: dict[str, str]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in found.items())
