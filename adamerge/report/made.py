"""When, on what and with which versions runs were made: what a reader asks for beside the numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from adamerge.report.collect import FinishedRun
from adamerge.tracking.provenance import Checkout, read_sittings


def made_of(runs: Sequence[FinishedRun]) -> dict[str, str]:
    """{"Made": days, "Devices": ..., "Versions": ..., "Code": commits}; empty words where nothing was noted."""
    sittings = [sitting for run in runs for sitting in read_sittings(run.folder)]
    days = sorted({sitting.started[:10] for sitting in sittings})
    packages = [run.results.versions for run in runs] + [{"Python": sitting.python} for sitting in sittings]
    names = dict.fromkeys(name for versions in packages for name in versions)
    return {
        "Made": " to ".join(dict.fromkeys((days[0], days[-1]))) if days else "",
        "Devices": _told(run.results.device for run in runs),
        "Versions": ", ".join(f"{name} {_told(v[name] for v in packages if name in v)}" for name in names),
        "Code": _told(_commit(sitting.checkout) for sitting in sittings if sitting.checkout is not None),
    }


def _told(values: Iterable[str]) -> str:
    """Each once: more than one is worth a look."""
    return " or ".join(dict.fromkeys(values))


def _commit(checkout: Checkout) -> str:
    return f"commit {checkout.commit[:12]}{', changed' if checkout.changed else ''}"
