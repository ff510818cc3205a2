"""The pool: the base encoder's parameters, the stacked task vectors of the experts, and their heads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from adamerge.architecture import Architecture, architecture_of
from adamerge.errors import PoolError
from adamerge.merging.coefficients import ONE, Coefficients
from adamerge.merging.compact import as_vectors, forms_of, mapped
from adamerge.merging.functional import merge_tensors
from adamerge.merging.head import Head
from adamerge.merging.layers import layer_table
from adamerge.merging.quantised import BITS, Quantised

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Pool:
    """Everything the methods merge. All its tensors are frozen.

    Attributes:
        encoder: the image encoder as a module without storage; its parameters are always given from here.
        base: the pre-trained encoder's tensors by key.
        vectors: for each key that some expert changed, the task vectors stacked as (T, numel); or `Compact` ones,
            which are opened out tensor by tensor.
        names: names of the T task vectors. One per task, or a single one where a rule has merged them.
        heads: per task its classification head.
        unseen: tasks with a head that are predicted, but of which no expert is merged and no image adapted on.
        coefficients: what a static merge multiplies the task vectors with.
        by_task: task t has its own encoder, base + coefficient * its task vector (individual experts, masks).
        finished: a finished model's (`Method.kept`): the base is its encoder, and the vectors are what it uses of the
            experts, as it uses it.
    """

    encoder: nn.Module
    base: dict[str, Tensor]
    vectors: Mapping[str, Tensor]
    names: tuple[str, ...]
    heads: dict[str, Head]
    unseen: tuple[str, ...] = ()
    coefficients: Coefficients = ONE
    by_task: bool = False
    finished: bool = False

    @property
    def backbone(self) -> Architecture:
        """What the encoder is made of: its sizes and the names of its tensors."""
        return architecture_of(self.encoder)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that are merged and adapted for, in the order in which their trained parts are kept."""
        return tuple(task for task in self.heads if task not in self.unseen)

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the tensors that are merged, in the order of the state dict."""
        return tuple(self.vectors)

    @property
    def fixed(self) -> dict[str, Tensor]:
        """The tensors that no expert changed."""
        return {key: value for key, value in self.base.items() if key not in self.vectors}

    def combined(self, coefficients: Coefficients) -> dict[str, Tensor]:
        """The full state dict base + sum_k lambda[l, k] * tau[k, l], without a graph."""
        if not self.vectors:
            return dict(self.base)
        table = coefficients.table(self.keys, len(self.names)).to(next(iter(self.base.values())).device)
        with torch.no_grad():
            changed = merge_tensors(
                table, self.base, self.vectors, layer_table(self.keys, coefficients.layout)
            )
        return {key: changed.get(key, value) for key, value in self.base.items()}

    def expert(self, task: str) -> dict[str, Tensor]:
        """The individual model of a task: base + its task vector."""
        return self.combined(Coefficients(one_hot(self.names, task).view(1, -1)))

    def static(self, task: str | None = None) -> dict[str, Tensor]:
        """The statically merged encoder; `task` chooses among the encoders of a pool that has one per task."""
        if not self.by_task:
            return self.combined(self.coefficients)
        own = one_hot(self.names, task) * self.coefficients.number
        return self.combined(Coefficients(own.view(1, -1)))

    def map(self, fn: Callable[[Tensor], Tensor]) -> Pool:
        """The same pool with `fn` (a move to another device or type) applied to every tensor."""
        base = {key: fn(value) for key, value in self.base.items()}

        def moved(value: Tensor) -> Tensor:
            return _keep_narrow(fn(value), value)

        vectors = as_vectors({key: mapped(form, moved) for key, form in forms_of(self.vectors).items()})
        return replace(
            self, base=base, vectors=vectors, heads={t: head.map(fn) for t, head in self.heads.items()}
        )


def one_hot(names: tuple[str, ...], task: str | None) -> Tensor:
    """(T,) the coefficients of one task's own encoder: 1 for its vector, 0 for the others.

    Raises:
        PoolError: no task is named, or one without a vector.
    """
    if task is None:
        raise PoolError(
            "This rule gives one encoder per task, so there is no single merged encoder.\n"
            "  Name a task, or choose a rule that merges (task_arithmetic, ties, ...)."
        )
    if task not in names:
        raise PoolError(f"The pool has no task vector '{task}'; it has {', '.join(names)}.")
    weights = torch.zeros(len(names))
    weights[names.index(task)] = 1.0
    return weights


def _keep_narrow(mapped: Tensor, original: Tensor) -> Tensor:
    """Task vectors stored in a narrower type stay narrow when the module around them changes its type."""
    return mapped.to(original.dtype) if original.dtype in (torch.bfloat16, torch.float16) else mapped


def stack_task_vectors(
    base: State, experts: Iterable[State], count: int, dtype: torch.dtype = torch.float32
) -> Mapping[str, Tensor]:
    """tau_k = theta_k - theta_0, stacked as (T, numel) per key, for the keys that some expert changed.

    The experts are taken one after the other, so that an iterator of `count` states never holds two at once.
    Differences are formed in the base's precision and only then stored as `dtype`, a float type or one of `BITS`.

    Raises:
        PoolError: any other type.
    """
    if not (dtype.is_floating_point or dtype in BITS):
        raise PoolError(
            f"Task vectors are not kept as {dtype}.\n  Give torch.float32, bfloat16, int8, int4 or int3."
        )
    stacks = {key: _zeros(count, origin.numel(), dtype) for key, origin in base.items()}
    for row, state in enumerate(experts):
        for key, value in state.items():
            if key in stacks:
                difference = (value.to(base[key].dtype) - base[key]).reshape(-1)
                if isinstance(stack := stacks[key], Quantised):
                    stack.put(row, difference)
                else:
                    stack[row] = difference
    return as_vectors({key: stack for key, stack in stacks.items() if _any_changed(stack)})


def _zeros(count: int, numel: int, dtype: torch.dtype) -> Tensor | Quantised:
    return Quantised.empty(count, numel, dtype) if dtype in BITS else torch.zeros(count, numel, dtype=dtype)


def _any_changed(stack: Tensor | Quantised) -> bool:
    return bool(((stack if isinstance(stack, Tensor) else stack.steps) != 0).any())
