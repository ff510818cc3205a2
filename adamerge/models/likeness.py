"""Finds models that are one and the same up to rounding: an expert that is the base, or one under two names."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_SAMPLED = 4096  # entries of a tensor, evenly spread; small tensors whole


class Lookalikes:
    """The models seen so far, each by a sample of its tensors."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, Tensor]] = {}

    def like(self, name: str, state: Mapping[str, Tensor]) -> str | None:
        """The name of a model seen before that `state` equals up to 16-bit rounding; it counts as seen from now on.

        Tensors that one of them does not have do not matter: Hugging Face's experts go without the projection.
        """
        return self.like_sample(name, {key: sample(value) for key, value in state.items()})

    def like_sample(self, name: str, sample: dict[str, Tensor]) -> str | None:
        """The same, for the samples of a model's tensors."""
        found = next((other for other, seen in self._seen.items() if _alike(sample, seen)), None)
        self._seen[name] = sample
        return found


def sample(value: Tensor) -> Tensor:
    """What is compared of one tensor."""
    flat = value.detach().reshape(-1)
    return flat[:: _step(len(flat))].float().clone()


def sampled(entries: int) -> int:
    """How many entries of a tensor of so many are compared."""
    return len(range(0, entries, _step(entries)))


def _step(entries: int) -> int:
    return max(1, entries // _SAMPLED)


def _alike(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Equal, or one of them the other rounded to 16 bits."""
    shared = [key for key in one if key in other]
    if not shared or any(one[key].shape != other[key].shape for key in shared):
        return False
    first, second = (torch.cat([state[key] for key in shared]) for state in (one, other))
    if torch.equal(first, second):
        return True
    narrow = [
        (first.to(dtype).float(), second.to(dtype).float()) for dtype in (torch.float16, torch.bfloat16)
    ]
    return any(torch.equal(a, second) or torch.equal(first, b) for a, b in narrow)
