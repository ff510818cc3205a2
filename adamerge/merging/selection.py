"""Exact order statistics of task vectors over all their tensors, without sorting or joining them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from adamerge.merging.task_vectors import Seen, TaskVectors, flattened

_SAMPLE = 1 << 17  # entries per task vector from which the first bracket is guessed
_MARGIN = 0.004  # half of the bracket's width, as a share of the entries


class _Kept:
    """Values that are kept, one behind the other. As small tensors of their own they would lie scattered among large
    ones that are freed, whose memory could then not be used again."""

    def __init__(self) -> None:
        self._room = torch.empty(1 << 20)
        self._count = 0

    def add(self, values: Tensor) -> None:
        end = self._count + len(values)
        if end > len(self._room):
            wider = torch.empty(max(end, 2 * len(self._room)))
            wider[: self._count] = self.values
            self._room = wider
        self._room[self._count : end] = values
        self._count = end

    @property
    def values(self) -> Tensor:
        return self._room[: self._count]


@dataclass
class _Bracket:
    """Bounds low <= answer <= high for the rank-th smallest magnitude of one task vector, and what lies between."""

    rank: int
    low: float
    high: float
    below: int = 0
    at_low: int = 0
    at_high: int = 0
    inside: _Kept = field(default_factory=_Kept)

    def look(self, magnitudes: Tensor) -> None:
        self.below += int((magnitudes < self.low).sum())
        self.at_low += int((magnitudes == self.low).sum())
        if self.high > self.low:
            self.at_high += int((magnitudes == self.high).sum())
            self.inside.add(magnitudes[(magnitudes > self.low) & (magnitudes < self.high)])

    def answer(self) -> float | None:
        """The magnitude of that rank; None where it lies outside the bounds, which are moved then."""
        left = self.rank - self.below
        if left <= 0:
            self._restart(0.0, self.low)
            return None
        if left <= self.at_low:
            return self.low
        left -= self.at_low
        inside = self.inside.values
        if left <= len(inside):
            return float(inside.kthvalue(left).values)
        if left <= len(inside) + self.at_high:
            return self.high
        self._restart(self.high, float("inf"))
        return None

    def _restart(self, low: float, high: float) -> None:
        self.low, self.high = low, high
        self.below = self.at_low = self.at_high = 0
        self.inside = _Kept()


def kth_magnitudes(vectors: TaskVectors, ranks: Sequence[int]) -> Tensor:
    """For each task vector the magnitude of a given rank among all its entries, in float32.

    A sample guesses bounds; one pass counts what lies below them and keeps what lies between. Where a guess was wrong
    (it shows in the counts) another pass follows with wider bounds, so the answer is always exact.

    Args:
        vectors: T task vectors; only the tensors that some expert changed count.
        ranks: T ranks from 1, the smallest magnitude; 0 or less gives 0.

    Returns:
        (T,) float32.
    """
    found: dict[int, float] = {t: 0.0 for t, rank in enumerate(ranks) if rank < 1}
    brackets = {t: bracket for t, bracket in _guessed(vectors, ranks).items() if t not in found}
    while brackets:
        for key in vectors.keys:
            magnitudes = _magnitudes(vectors.stack(key))
            for t, bracket in brackets.items():
                bracket.look(magnitudes[t])
        answers = {t: bracket.answer() for t, bracket in brackets.items()}
        found |= {t: answer for t, answer in answers.items() if answer is not None}
        brackets = {t: bracket for t, bracket in brackets.items() if t not in found}
    return torch.tensor([found[t] for t in range(len(ranks))], dtype=torch.float32)


def _magnitudes(stack: Tensor) -> Tensor:
    """(T, numel) float32 magnitudes."""
    return flattened(stack).float().abs()


def _guessed(vectors: TaskVectors, ranks: Sequence[int]) -> dict[int, _Bracket]:
    """Bounds from every n-th entry of each tensor."""
    total = sum(vectors.shapes[key].numel() for key in vectors.keys)
    every = max(1, total // _SAMPLE)
    # Copies: a slice would keep the whole tensor.
    sample = [_magnitudes(vectors.stack(key))[:, ::every].clone() for key in vectors.keys]
    ordered = torch.cat(sample, dim=1).sort(dim=1).values
    count = ordered.shape[1]
    brackets = {}
    for t, rank in enumerate(ranks):
        share = rank / total
        low, high = (min(max(round((share + m) * count), 0), count - 1) for m in (-_MARGIN, _MARGIN))
        brackets[t] = _Bracket(rank, float(ordered[t, low]), float(ordered[t, high]))
    return brackets


def kth_values(vectors: TaskVectors, ranks: Sequence[int], zeros: int = 0) -> Tensor:
    """For each task vector the entry of a given rank among all its entries with their signs, in float32.

    Args:
        ranks: T ranks from 1, the smallest entry.
        zeros: how many entries that are zero count beside those of the vectors.

    Returns:
        (T,) float32.
    """
    size = zeros + sum(vectors.shapes[key].numel() for key in vectors.keys)
    # The zeros are the smallest of what is above zero, and of what is below turned around.
    above = kth_magnitudes(_OneSign(vectors, 1.0), [rank - zeros for rank in ranks])
    if bool((above > 0).all()):
        return above
    below = kth_magnitudes(_OneSign(vectors, -1.0), [size - rank + 1 - zeros for rank in ranks])
    return torch.where(above > 0, above, -below)


@dataclass(frozen=True)
class _OneSign(Seen):
    """The entries of one sign, all others zero."""

    sign: float

    def stack(self, key: str) -> Tensor:
        return (self.sign * self.inner.stack(key)).clamp(min=0.0)
