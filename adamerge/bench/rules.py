"""Static rules from file to file: seconds and peak memory of each, and the floor: the files read once, one written."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adamerge.bench.harness import Step
from adamerge.merging.task_vectors import TaskVectors
from adamerge.models.backbone import Backbone
from adamerge.models.slices import open_vectors
from adamerge.rules.rule import Rule

FLOOR = "floor"
_PIECE = 16 << 20
Write = Callable[[Path, Rule, TaskVectors], Any]


@dataclass(frozen=True)
class Files:
    """A base and experts on the disk, and where the merge goes."""

    base: Path
    experts: Mapping[str, Path]
    merged: Path

    @property
    def bytes(self) -> int:
        """Of all that is read."""
        return sum(path.stat().st_size for path in (self.base, *self.experts.values()))


def build(variant: str, options: dict[str, Any]) -> Step:
    """One merge from file to file by the rule of that name, or the floor. It returns the bytes that were written.

    Args:
        options: "files" (`Files`), "model" of the backbone, "rules" by name, and "write", which merges into a file.
    """
    files: Files = options["files"]
    if variant == FLOOR:
        return lambda: _copied(files)
    rule: Rule = options["rules"][variant]
    Backbone.of(options["model"]).build()  # what is imported for it is no part of a merge

    def step() -> int:
        vectors = open_vectors(files.base, files.experts, options["model"])
        options["write"](files.merged, rule, vectors)
        return files.merged.stat().st_size

    return step


def unmeasured(rule: Rule) -> str:
    """Why a rule is not measured; empty for one that is."""
    if rule.gives == "experts":
        return "keeps one encoder per task: there is no file to write"
    return "" if rule.needs == "nothing" else f"learns from {rule.needs}, of which there are none here"


def _copied(files: Files) -> int:
    """Read every file once, and write one as large as the base."""
    piece = bytearray(_PIECE)
    for path in files.experts.values():
        with path.open("rb", buffering=0) as file:
            while file.readinto(piece):
                pass
    with files.base.open("rb", buffering=0) as base, files.merged.open("wb", buffering=0) as merged:
        while count := base.readinto(piece):
            merged.write(memoryview(piece)[:count])
        os.fsync(merged.fileno())
    return files.merged.stat().st_size
