"""The journal: one JSON object per line and step, the record that every other view of a run is made from."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

from adamerge.errors import RunError
from adamerge.files import atomic_write_text

log = logging.getLogger(__name__)
Record = dict[str, Any]


class Journal:
    """`journal.jsonl` of a run folder.

    A number that is not finite is written as null: JSON has no word for it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def append(self, record: Record) -> None:
        """Add a line; it is on its way to the disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(record))

    def read(self) -> list[Record]:
        """All records. A last line that a kill cut off is left out.

        Raises:
            RunError: a damaged line before the last.
        """
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").split("\n")
        records: list[Record] = []
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                records.append(_record(line))
            except ValueError as error:
                if number == len(lines):
                    log.warning("%s ends in half a line, which is left out.", self.path)
                    break
                raise RunError(
                    f"{self.path}, line {number}, is damaged: {error}.\n"
                    "  Delete it and the folder checkpoints beside it to start this run afresh."
                ) from error
        return records

    def truncate_after(self, step: int) -> None:
        """Keep the records up to and with `step`, so that a resumed run repeats none."""
        if self.path.exists():
            kept = [record for record in self.read() if record["step"] <= step]
            atomic_write_text(self.path, "".join(_line(record) for record in kept))


def _record(line: str) -> Record:
    record = json.loads(line)
    if not isinstance(record, dict) or not isinstance(record.get("step"), int):
        raise ValueError("it is no record of a step")
    return record


def _line(record: Record) -> str:
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
    return json.dumps(finite, allow_nan=False) + "\n"
