"""The pool: the base encoder's parameters, the stacked task vectors of the experts, and their heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from adamerge.errors import PoolError
from adamerge.merging.functional import merge_tensor

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Pool:
    """Everything the methods merge. All its tensors are frozen.

    Attributes:
        encoder: the image encoder as a module without storage; its parameters are always given from here.
        base: the pre-trained encoder's tensors by key.
        vectors: for each key that some expert changed, the task vectors stacked as (T, numel).
        names: names of the T task vectors. One per task, or a single one where a rule has merged them.
        heads: per task the classification head's weight (classes, d), with the logit scale in it.
        coefficient: what a static merge multiplies the task vectors with.
        by_task: task t has its own encoder, base + coefficient * its task vector (individual experts, masks).
    """

    encoder: nn.Module
    base: dict[str, Tensor]
    vectors: dict[str, Tensor]
    names: tuple[str, ...]
    heads: dict[str, Tensor]
    coefficient: float = 1.0
    by_task: bool = False

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.heads)

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the tensors that are merged, in the order of the state dict."""
        return tuple(self.vectors)

    @property
    def fixed(self) -> dict[str, Tensor]:
        """The tensors that no expert changed."""
        return {key: value for key, value in self.base.items() if key not in self.vectors}

    def combined(self, weights: Tensor) -> dict[str, Tensor]:
        """The full state dict base + sum_k weights[k] * tau_k, without a graph. `weights` has T entries."""
        with torch.no_grad():
            rows = weights.reshape(1, -1)
            changed = {k: merge_tensor(rows.to(v.device), self.base[k], v) for k, v in self.vectors.items()}
        return {key: changed.get(key, value) for key, value in self.base.items()}

    def expert(self, task: str) -> dict[str, Tensor]:
        """The individual model of a task: base + its task vector."""
        return self.combined(self._one_hot(task, 1.0))

    def static(self, task: str | None = None) -> dict[str, Tensor]:
        """The statically merged encoder; `task` chooses among the encoders of a pool that has one per task."""
        if not self.by_task:
            return self.combined(torch.full((len(self.names),), self.coefficient))
        if task is None:
            raise PoolError(
                "This rule gives one encoder per task, so there is no single merged encoder.\n"
                "  Name a task, or choose a rule that merges (task_arithmetic, ties, ...)."
            )
        return self.combined(self._one_hot(task, self.coefficient))

    def map(self, fn: Callable[[Tensor], Tensor]) -> Pool:
        """The same pool with `fn` (a move to another device or type) applied to every tensor."""
        base = {key: fn(value) for key, value in self.base.items()}
        vectors = {key: _keep_narrow(fn(value), value) for key, value in self.vectors.items()}
        return replace(self, base=base, vectors=vectors, heads={t: fn(h) for t, h in self.heads.items()})

    def _one_hot(self, task: str, value: float) -> Tensor:
        if task not in self.names:
            raise PoolError(f"The pool has no task vector '{task}'; it has {', '.join(self.names)}.")
        weights = torch.zeros(len(self.names))
        weights[self.names.index(task)] = value
        return weights


def _keep_narrow(mapped: Tensor, original: Tensor) -> Tensor:
    """Task vectors stored in a narrower type stay narrow when the module around them changes its type."""
    return mapped.to(original.dtype) if original.dtype in (torch.bfloat16, torch.float16) else mapped


def stack_task_vectors(
    base: State, experts: Mapping[str, State], dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """tau_k = theta_k - theta_0, stacked as (T, numel) per key, for the keys that some expert changed.

    Differences are formed in the base's precision and only then stored as `dtype`.
    """
    vectors: dict[str, Tensor] = {}
    for key, origin in base.items():
        stack = torch.empty(len(experts), origin.numel(), dtype=dtype)
        for row, state in enumerate(experts.values()):
            if key in state:
                stack[row] = (state[key].to(origin.dtype) - origin).reshape(-1)
            else:
                stack[row] = 0.0
        if torch.any(stack != 0):
            vectors[key] = stack
    return vectors
