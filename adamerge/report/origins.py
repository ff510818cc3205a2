"""What a run's numbers rest on beside its settings: runs on other pictures, experts or heads are not comparable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from adamerge.digests import digest
from adamerge.tracking.run_record import read_lineage

UNKNOWN = "unknown"
_SHOWN = 6  # digits of a digest that are shown


@dataclass(frozen=True, order=True)
class Origins:
    """Digests of contents; `UNKNOWN` for a run from before they were noted.

    Attributes:
        pictures: the test split of every task: pictures, labels and class words.
        experts: the base and the tasks' experts.
        heads: the tasks' heads, or what they are made of.
    """

    pictures: str
    experts: str
    heads: str


def origins(folder: Path, tasks: Sequence[str]) -> tuple[Origins, dict[str, str]]:
    """(what a finished run rests on, digests of what else made it: its code, and the file that it started from)."""
    lineage = read_lineage(folder)
    if lineage.data is None:
        return Origins(UNKNOWN, UNKNOWN, UNKNOWN), {}
    files = {name: weights.identity for name, weights in lineage.uses.items()}
    return Origins(
        digest({t: asdict(found) for t in tasks if (found := lineage.data.get(t, {}).get("test"))}),
        digest({name: files.get(name) for name in ("base", *(f"experts/{task}" for task in tasks))}),
        digest({task: lineage.heads.get(task) for task in tasks}),
    ), {"code": digest(lineage.code), "start": files.get("start", "")}


def told_apart(own: Origins, others: Sequence[Origins]) -> str:
    """In what `own` differs from the others, for a title: "pictures 1a2b3c, heads 4d5e6f"; empty for nothing."""
    mine = asdict(own)
    parts = [
        f"{name} {value[:_SHOWN] if value != UNKNOWN else UNKNOWN}"
        for name, value in mine.items()
        if any(asdict(other)[name] != value for other in others)
    ]
    return ", ".join(parts)
