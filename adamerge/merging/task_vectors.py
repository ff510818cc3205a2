"""What a static rule sees of a pool: the base and, key by key, the stack of what each expert changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

# (key, base, stack (T, *shape)) -> (T or 1, *shape); None leaves the tensor the base's.
TensorRule = Callable[[str, Tensor, Tensor], Tensor | None]


class TaskVectors(Protocol):
    """Task vectors tau_t = theta_t - theta_0 of T experts, one tensor at a time.

    Attributes:
        names: of the T experts.
        keys: of the tensors that some expert changed, in the order of the state dict.
        numel: entries of the whole base, the unchanged tensors among them.
    """

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def keys(self) -> tuple[str, ...]: ...

    @property
    def numel(self) -> int: ...

    def base(self, key: str) -> Tensor:
        """The base's tensor theta_0[key]."""
        ...

    def stack(self, key: str) -> Tensor:
        """The task vectors (T, *shape) of one tensor, in the base's precision."""
        ...


@dataclass(frozen=True)
class InMemory:
    """Task vectors that lie in memory.

    Attributes:
        names: of the T experts.
        tensors: the base's, by key.
        vectors: (T, numel) for each key that some expert changed.
    """

    names: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    vectors: Mapping[str, Tensor]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.vectors)

    @property
    def numel(self) -> int:
        return sum(tensor.numel() for tensor in self.tensors.values())

    def base(self, key: str) -> Tensor:
        return self.tensors[key]

    def stack(self, key: str) -> Tensor:
        base = self.tensors[key]
        return self.vectors[key].to(base.dtype).view(len(self.names), *base.shape)


@dataclass(frozen=True)
class AboutAverage:
    """The same experts seen from their mean: base theta_avg, task vectors theta_t - theta_avg (CART's origin).

    Source: CART (JH-GEECS/CART).
    """

    inner: TaskVectors

    @property
    def names(self) -> tuple[str, ...]:
        return self.inner.names

    @property
    def keys(self) -> tuple[str, ...]:
        return self.inner.keys

    @property
    def numel(self) -> int:
        return self.inner.numel

    def base(self, key: str) -> Tensor:
        return self.inner.base(key) + self.inner.stack(key).mean(dim=0)

    def stack(self, key: str) -> Tensor:
        stack = self.inner.stack(key)
        return stack - stack.mean(dim=0)


@dataclass(frozen=True)
class Some:
    """Some tensors of the same task vectors, as if there were no others."""

    inner: TaskVectors
    keys: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return self.inner.names

    @property
    def numel(self) -> int:
        return sum(self.inner.base(key).numel() for key in self.keys)

    def base(self, key: str) -> Tensor:
        return self.inner.base(key)

    def stack(self, key: str) -> Tensor:
        return self.inner.stack(key)


def merged_tensors(
    vectors: TaskVectors, rule: TensorRule, coefficient: float
) -> Iterator[tuple[str, Tensor]]:
    """(key, theta_0 + coefficient * sum of the rule's vectors), tensor by tensor: no more is held than is at work."""
    for key in vectors.keys:
        base = vectors.base(key)
        with torch.no_grad():
            found = rule(key, base, vectors.stack(key))
            yield key, base if found is None else base + coefficient * found.sum(dim=0).to(base.dtype)
