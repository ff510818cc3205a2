"""What a static rule sees of a pool: the base and, key by key, the stack of what each expert changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from adamerge.errors import PoolError
from adamerge.merging.compact import forms_of, opened
from adamerge.merging.functional import merge_tensor
from adamerge.merging.quantised import BITS, Quantised, packed
from adamerge.merging.walk import Walk

# (key, base, stack (T, *shape)) -> (T or 1, *shape); None leaves the tensor the base's.
TensorRule = Callable[[str, Tensor, Tensor], Tensor | None]
Origin = Literal["base", "average"]


class TaskVectors(Protocol):
    """Task vectors tau_t = theta_t - theta_0 of T experts, one tensor at a time.

    Attributes:
        names: of the T experts.
        keys: of the tensors that some expert changed, in the order of the state dict.
        shapes: of every tensor of the base, the unchanged ones among them.
    """

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def keys(self) -> tuple[str, ...]: ...

    @property
    def shapes(self) -> Mapping[str, torch.Size]: ...

    def base(self, key: str) -> Tensor:
        """The base's tensor theta_0[key]."""
        ...

    def stack(self, key: str) -> Tensor:
        """The task vectors (T, *shape) of one tensor, in the base's precision."""
        ...

    def kept(self, key: str) -> Tensor | Quantised:
        """The same (T, numel) as they are kept: in a narrow type, or as codes."""
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
    def shapes(self) -> dict[str, torch.Size]:
        return {key: tensor.shape for key, tensor in self.tensors.items()}

    def base(self, key: str) -> Tensor:
        return self.tensors[key]

    def stack(self, key: str) -> Tensor:
        base = self.tensors[key]
        return self.vectors[key].to(base.dtype).view(len(self.names), *base.shape)

    def kept(self, key: str) -> Tensor | Quantised:
        return opened(forms_of(self.vectors)[key])


@dataclass(frozen=True)
class Seen:
    """The same task vectors, seen in another way: as they are but for what a class below changes."""

    inner: TaskVectors

    @property
    def names(self) -> tuple[str, ...]:
        return self.inner.names

    @property
    def keys(self) -> tuple[str, ...]:
        return self.inner.keys

    @property
    def shapes(self) -> Mapping[str, torch.Size]:
        return self.inner.shapes

    def base(self, key: str) -> Tensor:
        return self.inner.base(key)

    def stack(self, key: str) -> Tensor:
        return self.inner.stack(key)

    def kept(self, key: str) -> Tensor | Quantised:
        return self.inner.kept(key)


@dataclass(frozen=True)
class AboutAverage(Seen):
    """The same experts seen from their mean: base theta_avg, task vectors theta_t - theta_avg (CART's origin).

    Source: CART (JH-GEECS/CART).
    """

    def base(self, key: str) -> Tensor:
        base = self.inner.base(key)
        return base + self.inner.stack(key).mean(dim=0) if key in self.inner.keys else base

    def stack(self, key: str) -> Tensor:
        stack = self.inner.stack(key)
        return stack - stack.mean(dim=0)

    def kept(self, key: str) -> Tensor:
        return flattened(self.stack(key))


def origin_of(vectors: TaskVectors) -> Origin:
    """What task vectors start from."""
    while isinstance(vectors, Seen):
        if isinstance(vectors, AboutAverage):
            return "average"
        vectors = vectors.inner
    return "base"


def about_base(vectors: TaskVectors) -> TaskVectors:
    """The same experts seen from the pre-trained base."""
    while isinstance(vectors, Seen):
        vectors = vectors.inner
    return vectors


@dataclass(frozen=True)
class Some(Seen):
    """Some tensors of the same task vectors, as if there were no others."""

    only: tuple[str, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        return self.only

    @property
    def shapes(self) -> dict[str, torch.Size]:
        return {key: self.inner.shapes[key] for key in self.only}


def about(vectors: TaskVectors, origin: Origin) -> TaskVectors:
    """The same experts seen from the base or from their average.

    Raises:
        PoolError: a single expert is its own average.
    """
    if origin == "base":
        return vectors
    if len(vectors.names) < 2:
        raise PoolError(
            "origin=average: the average of one expert is that expert, and no task vector is left.\n"
            "  Give origin=base, or more experts."
        )
    return AboutAverage(vectors)


class Statistics(Protocol):
    """What one pass of each expert, or of the base, over unlabeled images of the expert's task left."""

    def gram(self, expert: str, key: str) -> Tensor | None:
        """(inputs, inputs) mean over tokens of x x^T, x what enters the linear whose weight `key` is, in this expert.
        None for a tensor that is no such weight."""
        ...

    def fisher(self, expert: str, key: str) -> Tensor | None:
        """The diagonal of this expert's Fisher information at one of its tensors, of its shape. None for a tensor of
        integers."""
        ...

    def activation(self, expert: str, key: str) -> Tensor | None:
        """(inputs,) mean over tokens of |x|, x what enters the linear whose weight `key` is, in the pre-trained base on
        images of this expert's task. None for a tensor that is no such weight."""
        ...

    def walk(self, merged: Mapping[str, Tensor]) -> AbstractContextManager[Walk]:
        """The images of every expert's task in front of the first block of a merge, by key, and of each expert."""
        ...


@dataclass(frozen=True)
class Observed(Seen):
    """Task vectors with what their experts made of images."""

    statistics: Statistics


def observed(vectors: TaskVectors) -> Statistics:
    """The statistics that go with task vectors.

    Raises:
        PoolError: there are none.
    """
    if not isinstance(vectors, Observed):
        raise PoolError(
            "This rule learns from unlabeled images of every task, which were not given.\n"
            "  In Python: adamerge.merge(pool, rule=..., post=..., images={task: images (n, 3, H, W)})."
        )
    return vectors.statistics


def numel(vectors: TaskVectors) -> int:
    """Entries of the whole base, the unchanged tensors among them."""
    return sum(shape.numel() for shape in vectors.shapes.values())


def flattened(stack: Tensor) -> Tensor:
    """(T, *shape) -> (T, numel), also where the tensor is a single number."""
    return stack.reshape(len(stack), -1)


def per_task(numbers: Tensor, stack: Tensor) -> Tensor:
    """A number for each task (T,), to be multiplied with task vectors (T, *shape)."""
    return numbers.to(stack).view(-1, *(1,) * (stack.ndim - 1))


def kept_of_rule(
    key: str, vectors: TaskVectors, stack: Tensor, changed: Tensor, dtype: torch.dtype
) -> Tensor | Quantised:
    """What a rule made of one tensor's vectors, as it is kept: (T, numel), or (1, numel) of one delta.

    Vectors that the rule gave back as they are keep their codes: quantised again they would have other steps.
    """
    if changed is stack and dtype in BITS and isinstance(kept := vectors.kept(key), Quantised):
        return kept
    return packed(flattened(changed), dtype)


def merged_tensor(
    key: str, vectors: TaskVectors, rule: TensorRule, weights: Tensor, dtype: torch.dtype
) -> Tensor:
    """theta_0 + sum_k weights_k * the rule's vector k, of one tensor alone: to the bit what a pool merges.

    Args:
        weights: (T,) merging coefficients, or (1,) of a rule that gives one delta.
        dtype: what a pool keeps the rule's vectors as.
    """
    with torch.no_grad():
        base = vectors.base(key)
        if key not in vectors.keys:
            return base
        stack = vectors.stack(key)
        changed = rule(key, base, stack)
        if changed is None:
            return base
        return merge_tensor(weights.view(1, -1), base, kept_of_rule(key, vectors, stack, changed, dtype))
