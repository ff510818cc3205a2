"""A comparison as the page shows it: which number is compared, and which methods are picked out at first."""

from __future__ import annotations

from dataclasses import dataclass

from adamerge.report.collect import Comparison, Group, Spread
from adamerge.report.comparison import Line, is_reference, lines
from adamerge.report.objectives import objective

_PICKED = 5
_COLORS = 8


@dataclass(frozen=True)
class View:
    """One comparison.

    Attributes:
        key: prefix of the element ids, unique on the page.
        value: "accuracy", or "agreement" where the images have no labels.
        picked: positions of the groups that have a colour at first.
    """

    key: str
    comparison: Comparison
    value: str
    lines: tuple[Line, ...]
    picked: tuple[int, ...]

    @classmethod
    def of(cls, comparison: Comparison, key: str) -> View:
        known = any(group.spread("average").mean is not None for group in comparison.groups)
        value = "accuracy" if known else "agreement"
        return cls(key, comparison, value, tuple(lines(comparison, value)), _first(comparison))

    @property
    def groups(self) -> tuple[Group, ...]:
        return self.comparison.groups

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.comparison.tasks

    def average(self, group: Group) -> Spread:
        return group.spread("average" if self.value == "accuracy" else self.value)

    def classes(self, index: int, kind: str) -> str:
        """Classes of an element that belongs to a group: report.js changes slot and `off` when another is picked."""
        return f"{kind} {color(self.picked.index(index))}" if index in self.picked else f"{kind} off"


def _first(comparison: Comparison) -> tuple[int, ...]:
    """The best group of each objective, so that every chart has a coloured one, then the best of other methods."""
    kinds: dict[str, int] = {}
    methods: dict[str, int] = {}
    for index, group in enumerate(comparison.groups):
        if not is_reference(group.name):
            first = group.runs[0]
            kinds.setdefault(objective(first.results, first.config), index)
            methods.setdefault(group.runs[0].results.method, index)
    picked = [*kinds.values()][:_COLORS]
    others = [index for index in methods.values() if index not in picked]
    return tuple(sorted([*picked, *others[: max(0, _PICKED - len(picked))]]))


def color(slot: int) -> str:
    """The colours go round; the second and third time the lines are dashed."""
    return f"c{slot % _COLORS} d{min(slot // _COLORS, 2)}"
