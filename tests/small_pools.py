"""Pools of a few hand-made tensors, and what tests of rules do with any pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import adamerge
from adamerge.merging import Head, Pool

State = dict[str, Tensor]


def pool_of(*, base: dict[str, Any] | None = None, **tensors: Any) -> Pool:
    """Task vectors by key, each a list with one nested list per task; the base is zero unless given."""
    stacks = {key: torch.as_tensor(rows, dtype=torch.float64) for key, rows in tensors.items()}
    zeros: dict[str, Any] = {key: torch.zeros(stack.shape[1:]) for key, stack in stacks.items()}
    origin = {key: torch.as_tensor(v, dtype=torch.float64) for key, v in {**zeros, **(base or {})}.items()}
    names = tuple("abcdefgh"[: len(next(iter(stacks.values())))])
    vectors = {key: stack.reshape(len(names), -1) for key, stack in stacks.items()}
    heads = {name: Head(torch.ones(2, 1, dtype=torch.float64)) for name in names}
    return Pool(torch.nn.Identity(), origin, vectors, names, heads)


def taus(pool: Pool) -> dict[str, list[Tensor]]:
    """The task vectors of each tensor, in its shape."""
    return {key: [row.view(pool.base[key].shape) for row in stack] for key, stack in pool.vectors.items()}


def added(pool: Pool, change: dict[str, Tensor]) -> State:
    """The base plus a change of some tensors."""
    return {key: value + change.get(key, torch.zeros_like(value)) for key, value in pool.base.items()}


def reordered(pool: Pool, order: Sequence[int]) -> Pool:
    """The same experts in another order."""
    names = tuple(pool.names[i] for i in order)
    return replace(pool, names=names, vectors={k: v[list(order)] for k, v in pool.vectors.items()})


def close(found: State, expected: State, rtol: float = 1e-6, atol: float = 1e-7) -> None:
    """A coefficient that is one number is one of float32, so that float64 pools agree to that."""
    assert set(found) == set(expected)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=rtol, atol=atol)


def the_order_of_tasks_does_not_matter(pool: Pool, rule: str, **options: Any) -> None:
    other = adamerge.merge(reordered(pool, [2, 0, 1]), rule, **options)
    close(other, adamerge.merge(pool, rule, **options))
