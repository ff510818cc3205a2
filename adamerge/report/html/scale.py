"""From values to places on an axis, with round tick values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_GAP = 34.0  # between the place of zero and the least positive value on a logarithmic axis


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` lie between the places `start` and `end`.

    Attributes:
        log: logarithmic; values up to zero then lie at `start`, apart from the others if `zero`.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    zero: bool = False

    def at(self, value: float) -> float:
        if not self.log:
            return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)
        if value <= 0:
            return self.start
        first = self.start + math.copysign(_GAP, self.end - self.start) if self.zero else self.start
        share = (math.log10(value) - math.log10(self.low)) / (math.log10(self.high) - math.log10(self.low))
        return first + (self.end - first) * share

    def ticks(self) -> list[float]:
        if not self.log:
            step = _round_step((self.high - self.low) / 5)
            first = math.ceil(self.low / step - 1e-9)
            last = math.floor(self.high / step + 1e-9)
            return [i * step for i in range(first, last + 1)]
        low, high = round(math.log10(self.low)), round(math.log10(self.high))
        every = max(1, math.ceil((high - low) / 6))
        return [*([0.0] if self.zero else []), *(10.0**i for i in range(low, high + 1, every))]


def linear(values: Sequence[float], start: float, end: float, low: float | None = None) -> Scale:
    """An axis over the values that begins and ends on ticks."""
    least = min(values) if low is None else min(low, min(values))
    most = max(values)
    if most - least < 1e-12:
        least, most = least - 0.5 * (abs(least) or 1.0), most + 0.5 * (abs(most) or 1.0)
    step = _round_step((most - least) / 5)
    return Scale(math.floor(least / step + 1e-9) * step, math.ceil(most / step - 1e-9) * step, start, end)


def logarithmic(values: Sequence[float], start: float, end: float) -> Scale:
    """An axis over the powers of ten around the positive values, with a place of its own for zero."""
    positive = [value for value in values if value > 0] or [1.0, 10.0]
    low = math.floor(math.log10(min(positive)) + 1e-9)
    high = max(low + 1, math.ceil(math.log10(max(positive)) - 1e-9))
    return Scale(10.0**low, 10.0**high, start, end, True, len(positive) < len(values))


def label(value: float) -> str:
    """A tick value in few characters: 0.25, 40, 10k, 1M."""
    for unit, word in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{word}"
    return f"{value:.10g}"


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= step * (1 - 1e-9))
