"""A sweep: every job notes its run folder in one file, from which the table at the end is made.

The file's name is in the environment, so that jobs in processes of their own (joblib, submitit) find it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adamerge.console import plain_console
from adamerge.errors import RunError
from adamerge.report.collect import collect
from adamerge.report.comparison import console_table
from adamerge.report.names import percent, seconds
from adamerge.runs.worker_gpu import take_gpu
from adamerge.tracking.results import Results

_ENV = "ADAMERGE_SWEEP"


def in_sweep() -> bool:
    return _ENV in os.environ


def in_worker() -> None:
    """A job of a sweep begins in a process of its own."""
    if path := os.environ.get(_ENV):
        take_gpu(Path(path).parent)


def note(folder: Path) -> None:
    """Tell the sweep, if this is a job of one, where the job's run is."""
    if path := os.environ.get(_ENV):
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{folder.absolute()}\n")


def line(results: Results, folder: Path, again: bool) -> str:
    """One job in one line."""
    used = "finished before" if again else f"adapted in {seconds(results.seconds.get('adapt', 0.0))}"
    shown = f"average {percent(results.average)}" if results.average is not None else ""
    agrees = f"agreement {percent(results.agreement)}"
    return ", ".join(
        part for part in (f"{results.method}, seed {results.seed}: {used}", shown, agrees) if part
    ) + (f": {folder}")


@contextmanager
def sweep() -> Iterator[None]:
    """Around the jobs; afterwards their table is shown. A job that failed is named as left out."""
    with tempfile.TemporaryDirectory(prefix="adamerge-sweep-") as folder:
        path = Path(folder) / "runs"
        os.environ[_ENV] = str(path)
        try:
            yield
        finally:
            del os.environ[_ENV]
            if path.exists():
                _show([Path(name) for name in dict.fromkeys(path.read_text(encoding="utf-8").splitlines())])


def _show(folders: list[Path]) -> None:
    console = plain_console()
    try:
        collected = collect([folder for folder in folders if folder.is_dir()])
    except RunError:
        return  # no job came as far as a run folder; their errors stand above
    for comparison in collected.comparisons:
        console.print(console_table(comparison))
    for place, reason in collected.unfinished:
        console.print(f"left out: {place}: {reason}", highlight=False, soft_wrap=True, markup=False)
    parents = dict.fromkeys(os.path.relpath(folder.parent.parent) for folder in folders)
    console.print(f"python -m adamerge compare {' '.join(parents)}", highlight=False, soft_wrap=True)
