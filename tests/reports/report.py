"""A user's report as a row of a table: a small input, a command line on it, and what is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adamerge.settings.paths import PACKAGE

BASE = PACKAGE / "zoo/mini/base"
EXPERTS = PACKAGE / "zoo/mini/experts"


@dataclass(frozen=True)
class Report:
    """One kind of report.

    Attributes:
        name: what the user did, in a few words.
        words: makes the small input below a folder and gives the command line.
        exit: the exit code that is right; 2 for an input that is refused.
        says: texts that the output must hold, each.
        says_not: texts that it must not hold.
        average: the average accuracy, as a share, that the run's results.json must hold (to 1e-4).
    """

    name: str
    words: Callable[[Path], list[str]]
    exit: int = 2
    says: tuple[str, ...] = ()
    says_not: tuple[str, ...] = ()
    average: float | None = None
