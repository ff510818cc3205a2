"""What a run folder holds beside its results: loss curve, coefficients, representations.

Damage is told, never raised.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

from adamerge.errors import RunError
from adamerge.report.collect import Group
from adamerge.report.depth import depth
from adamerge.report.names import WATCHED
from adamerge.tracking.journal import Journal

POINTS = 200
_CLOUD = 400  # points per cloud of representations

Curve = list[tuple[float, float]]
_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Coefficients:
    """Layers x tasks, in the order from the input to the output; the mean over `seeds` runs."""

    layers: list[str]
    tasks: list[str]
    values: list[list[float]]
    seeds: int


@dataclass(frozen=True)
class Representations:
    """Of the first run that has some: distance to the expert by task, and two clouds of one task in the plane."""

    task: str
    distance: dict[str, float]
    merged: Curve
    expert: Curve


@dataclass(frozen=True)
class Artifacts:
    """Of one group; None or empty where its runs wrote none. `watched`: evaluations while training, in percent."""

    curve: Curve = field(default_factory=list)
    watched: dict[str, Curve] = field(default_factory=dict)
    coefficients: Coefficients | None = None
    representations: Representations | None = None


def read_artifacts(group: Group, problems: list[tuple[Path, str]]) -> Artifacts:
    """Everything that the group's runs have; a damaged file is left out and named in `problems`."""
    journals = _read_each(group, "journal.jsonl", _journal, problems)
    tables = _read_each(group, "coefficients.json", _coefficients, problems)
    representations = _read_each(group, "representations.json", _representations, problems)
    return Artifacts(
        _mean_curve([loss for loss, _ in journals if loss]),
        {key: curve for key in WATCHED if (curve := _mean_curve([w[key] for _, w in journals if key in w]))},
        _mean_table(tables),
        representations[0] if representations else None,
    )


def _read_each(
    group: Group, name: str, read: Callable[[Path], _Read], problems: list[tuple[Path, str]]
) -> list[_Read]:
    found = []
    for path in (run.folder / name for run in group.runs):
        if path.exists():
            try:
                found.append(read(path))
            except (RunError, OSError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
                problems.append((path, f"damaged: {(str(error) or repr(error)).splitlines()[0]}"))
    return found


def _journal(path: Path) -> tuple[Curve, dict[str, Curve]]:
    """The loss, and what was evaluated while training, in percent."""
    records = Journal(path).read()
    watched = {
        key: [(float(r["step"]), 100.0 * r[key]) for r in records if r.get(key) is not None]
        for key in WATCHED
    }
    return _loss(records), {key: curve for key, curve in watched.items() if curve}


def _loss(records: Sequence[dict[str, Any]]) -> Curve:
    """Steps and the mean of the loss over the tasks, in at most POINTS bins."""
    values: Curve = []
    for record in records:
        own = [v for key, v in record.items() if key.startswith("loss/") and v is not None]
        own = own or [v for v in (record.get("loss"),) if v is not None]
        if own:
            values.append((float(record["step"]), sum(own) / len(own)))
    width = -(-len(values) // POINTS) or 1
    bins = [values[i : i + width] for i in range(0, len(values), width)]
    return [(sum(x for x, _ in b) / len(b), sum(y for _, y in b) / len(b)) for b in bins]


def _mean_curve(curves: Sequence[Curve]) -> Curve:
    """Over seeds, as far as all of them go."""
    return [(points[0][0], sum(y for _, y in points) / len(points)) for points in zip(*curves, strict=False)]


def _coefficients(path: Path) -> Coefficients:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    layers, tasks = list(map(str, content["layers"])), list(map(str, content["tasks"]))
    values = [[float(value) for value in row] for row in content["values"]]
    if not values or len(values) != len(layers) or any(len(row) != len(tasks) for row in values):
        raise ValueError("the values do not fit the layers and tasks")
    if not all(isfinite(value) for row in values for value in row):
        raise ValueError("a value is not finite")
    order = sorted(range(len(layers)), key=lambda row: depth(layers[row]))
    return Coefficients([layers[i] for i in order], tasks, [values[i] for i in order], 1)


def _mean_table(tables: Sequence[Coefficients]) -> Coefficients | None:
    if not tables:
        return None
    first = tables[0]
    same = [t for t in tables if (t.layers, t.tasks) == (first.layers, first.tasks)]
    values = [
        [sum(t.values[i][j] for t in same) / len(same) for j in range(len(first.tasks))]
        for i in range(len(first.layers))
    ]
    return Coefficients(first.layers, first.tasks, values, len(same))


def _representations(path: Path) -> Representations:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    clouds = [[(float(x), float(y)) for x, y in content["points"][name]] for name in ("merged", "expert")]
    thinned = [cloud[:: -(-len(cloud) // _CLOUD) or 1] for cloud in clouds]
    distance = {str(task): float(value) for task, value in content["distance"].items()}
    if not all(isfinite(v) for v in (*distance.values(), *(v for c in thinned for p in c for v in p))):
        raise ValueError("a value is not finite")
    return Representations(str(content["task"]), distance, thinned[0], thinned[1])
