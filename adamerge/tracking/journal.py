"""placeholder until the real one lands"""
from __future__ import annotations
import json
from pathlib import Path
from typing import Any


class Journal:
    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def append(self, record: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as f:
            f.write(json.dumps(record) + "\n")

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(x) for x in self.path.read_text().splitlines()] if self.path.exists() else []

    def truncate_after(self, step: int) -> None:
        lines = [r for r in self.read() if r["step"] <= step]
        if self.path.exists():
            self.path.write_text("".join(json.dumps(r) + "\n" for r in lines))
