"""PCB-Merging by sorting whole flattened vectors in float64, and the order statistics that it asks for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from restating import pool64
from small_pools import added, close, the_order_of_tasks_does_not_matter
from torch import Tensor

import adamerge
from adamerge.merging.selection import kth_values
from adamerge.merging.task_vectors import InMemory
from adamerge.methods.adamerging import AdaMerging
from adamerge.rules.pcb import Pcb


def normed(x: Tensor) -> Tensor:
    low, high = x.min(dim=1, keepdim=True).values, x.max(dim=1, keepdim=True).values
    return (x - low) / (high - low)


def by_hand(x: Tensor, keep: float, scale: float) -> Tensor:
    """The merged vector (d,) of whole vectors (T, d), every order statistic by a sort."""
    tasks, size = x.shape
    order = x.abs().sort(dim=1).values
    low, high = order[:, int(size * 0.01)], order[:, int(size * 0.99 - 1)]
    magnitudes = torch.stack([x[t].abs().clamp(low[t], high[t]) for t in range(tasks)])
    signed = torch.zeros(size, dtype=torch.float64)
    for t in range(tasks):
        signed = signed + x[t].sign() * normed(magnitudes)[t]
    balance = torch.exp(tasks * normed(magnitudes) ** 2) * torch.tanh(x * signed)
    least = balance.sort(dim=1).values[:, int(size * (1 - keep))]
    weights = normed(torch.maximum(balance, least.unsqueeze(1)))
    return (scale * x.sign() * magnitudes * weights).sum(dim=0) / weights.sum(dim=0).clamp(min=1e-12)


def flat(pool: Any, extra: int = 0) -> Tensor:
    rows = torch.cat(list(pool.vectors.values()), dim=1)
    return torch.cat([rows, torch.zeros(len(rows), extra, dtype=rows.dtype)], dim=1)


@pytest.mark.parametrize("keep", [0.05, 0.4, 0.9])  # at 0.9 the least weight is that of a negative entry
@pytest.mark.parametrize("extra", [0, 700])
def test_it_is_the_authors_recipe_over_the_whole_vector(keep: float, extra: int) -> None:
    pool = pool64()
    merged = by_hand(flat(pool, extra), keep, 1.2)
    change, first = {}, 0
    for key, stack in pool.vectors.items():
        change[key] = merged[first : first + stack.shape[1]].view(pool.base[key].shape)
        first += stack.shape[1]
    size = None if extra == 0 else flat(pool, extra).shape[1]
    found = adamerge.merge(pool, "pcb", keep=keep, reference_size=size)
    close(found, added(pool, change), rtol=1e-5, atol=1e-6)


def test_the_reference_size_keeps_more() -> None:
    """As with TIES: shares of a larger vector, of which the surplus is zeros, keep more of what there is."""
    pool = pool64()
    size = flat(pool).shape[1]
    kept = [
        sum(int((stack[0] != 0).sum()) for stack in Pcb(0.05, reference_size=n)(pool).vectors.values())
        for n in (None, size, 2 * size)
    ]
    assert kept[0] == kept[1] < kept[2]
    assert kept[0] <= int(0.05 * size) + 1


def test_one_expert_keeps_its_largest_entries() -> None:
    pool = pool64(tasks=("digits",))
    found = flat(Pcb(0.1, scale=1.0)(pool))[0]
    entries = flat(pool)[0]
    kept = found != 0
    assert abs(int(kept.sum()) - int(0.1 * len(entries))) <= 1
    assert float(entries[kept].abs().min()) >= float(entries[~kept].abs().max())
    high = entries.abs().sort().values[int(len(entries) * 0.99 - 1)]
    torch.testing.assert_close(found[kept], entries[kept].clamp(-high, high))


def test_the_order_of_the_tasks_does_not_matter_and_a_task_that_changed_nothing_adds_nothing() -> None:
    the_order_of_tasks_does_not_matter(pool64(), "pcb")
    pool = pool64()
    for stack in pool.vectors.values():
        stack[1] = 0.0
    ruled = Pcb()(pool)
    assert all(bool(stack.isfinite().all()) for stack in ruled.vectors.values())
    assert not any(bool(stack[1].any()) for stack in ruled.vectors.values())


def test_learned_coefficients_start_at_the_merge() -> None:
    pool = pool64()
    ruled = Pcb()(pool)
    assert ruled.coefficients.number == 1.0
    assert Pcb.own_start
    start = AdaMerging(ruled, start=None).double()
    close(start.merged_state_dict(), ruled.static())


@given(st.integers(1, 3), st.integers(1, 40), st.integers(0, 20), st.integers(0, 500))
@settings(max_examples=80, deadline=None)
def test_signed_order_statistics_are_those_of_a_sort(tasks: Any, length: Any, zeros: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    stack = torch.randint(-4, 5, (tasks, length), generator=generator).float() / 3
    vectors = InMemory(tuple("abc"[:tasks]), {"w": torch.zeros(length)}, {"w": stack})
    ordered = torch.cat([stack, torch.zeros(tasks, zeros)], dim=1).sort(dim=1).values
    ranks = [int(torch.randint(1, length + zeros + 1, (1,), generator=generator)) for _ in range(tasks)]
    expected = torch.stack([ordered[t, rank - 1] for t, rank in enumerate(ranks)])
    assert torch.equal(kth_values(vectors, ranks, zeros), expected)


def test_ranges() -> None:
    with pytest.raises(ValueError, match="keep"):
        Pcb(keep=0.0)
    with pytest.raises(ValueError, match="reference_size"):
        Pcb(reference_size=0)
