"""DARE: most entries of each task vector are dropped at random and the rest scaled up (arXiv 2311.03099, ICML 2024)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from adamerge.merging.masks import uniform_noise
from adamerge.merging.task_vectors import Seen, TaskVectors, TensorRule
from adamerge.rules.linear import WeightAverage
from adamerge.rules.rule import CompactRule, Rule


class Dare(Rule):
    """tau_t * m_t / (1 - drop) with m_t ~ Bernoulli(1 - drop) entry by entry, given to another rule.

    In expectation each task vector is itself. A mask is a pure function of seed, expert and tensor: the order in which
    tensors or experts are read makes no difference.

    Args:
        drop: share of entries that are dropped. None is published for fully tuned CLIP encoders; the paper's language
            models, whose task vectors are smaller, stand 0.9 and more.
        mask_seed: of the masks; a run gives its own.
        then: the rule that merges what is left; None: the average.
    """

    def __init__(self, drop: float = 0.5, mask_seed: int = 0, then: Rule | None = None) -> None:
        if not 0.0 <= drop < 1.0:
            raise ValueError(f"drop is the share of entries to drop, in [0, 1), not {drop}")
        self.then = WeightAverage() if then is None else then
        if self.then.needs != "nothing":
            raise ValueError(
                f"DARE is data-free, and {type(self.then).__name__} learns from {self.then.needs}"
            )
        self.drop = drop
        self.mask_seed = mask_seed
        self.gives = self.then.gives
        self.ranks = self.then.ranks
        self.origin = self.then.origin
        self.own_start = self.then.own_start

    def coefficient(self, count: int) -> float | None:
        return self.then.coefficient(count)

    def prepare(self, vectors: TaskVectors) -> TensorRule:
        dropped = Dropped(vectors, self._left(vectors.names))
        rule = self.then.prepare(dropped)
        return lambda key, base, stack: rule(key, base, dropped.left(key, stack))

    def compact(self, vectors: TaskVectors) -> CompactRule:
        dropped = Dropped(vectors, self._left(vectors.names))
        rule = self.then.compact(dropped)
        return lambda key, base, stack: rule(key, base, dropped.left(key, stack))

    def _left(self, names: tuple[str, ...]) -> Callable[[str, Tensor], Tensor]:
        def left(key: str, stack: Tensor) -> Tensor:
            # Always drawn in float32 on the CPU: the masks are those of every device and precision.
            like = torch.empty(stack.shape[1:])
            kept = [uniform_noise(like, self.mask_seed, f"{name}/{key}", 0) >= self.drop for name in names]
            return torch.where(torch.stack(kept).to(stack.device), stack / (1.0 - self.drop), 0.0)

        return left


@dataclass(frozen=True)
class Dropped(Seen):
    """Task vectors of which only what `left(key, stack)` leaves is seen."""

    left: Callable[[str, Tensor], Tensor]

    def stack(self, key: str) -> Tensor:
        return self.left(key, self.inner.stack(key))
