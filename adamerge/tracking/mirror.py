"""A mirror shows a run elsewhere (W&B, TensorBoard, ...). The run folder is the record; a mirror only reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from adamerge.tracking.journal import Record
from adamerge.tracking.run_record import RunRecord


class Mirror(Protocol):
    """Where a run is shown. Each is made for one run folder and does nothing before `start`."""

    def start(self) -> None:
        """Open it with the run's config."""

    def step(self, record: Record) -> None:
        """Show a line of the journal; in order, but those shown before may come again."""

    def finish(self) -> None:
        """Show what the folder holds now, results or none, and close."""


def replay(folder: Path, mirror: Mirror) -> None:
    """Show a run that is over: finished, failed or killed."""
    mirror.start()
    for record in RunRecord(folder).journal():
        mirror.step(record)
    mirror.finish()
