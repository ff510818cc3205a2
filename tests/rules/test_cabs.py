"""CABS block by block in plain Python, what overlaps, tails, and the order of the tasks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from restating import pool64
from small_pools import added, close, pool_of, reordered, taus
from torch import Tensor

import adamerge
from adamerge.rules.cabs import Cabs


def by_hand(vectors: list[Tensor], keep: int, block: int, tail: str) -> list[Tensor]:
    taken: set[int] = set()
    found = []
    for vector in vectors:
        row = [0.0 if i in taken else x for i, x in enumerate(vector.flatten().tolist())]
        mask: set[int] = set()
        for start in range(0, len(row), block):
            places = list(range(start, min(start + block, len(row))))
            count = keep if len(places) == block else keep * len(places) // block * (tail == "keep")
            mask |= set(sorted(places, key=lambda i: (-abs(row[i]), i))[:count])
        taken |= mask
        kept = [x if i in mask else 0.0 for i, x in enumerate(row)]
        found.append(torch.tensor(kept, dtype=torch.float64).view(vector.shape))
    return found


@pytest.mark.parametrize("tail", ["keep", "drop"])
@pytest.mark.parametrize(("keep", "block"), [(2, 10), (5, 7)])
def test_it_prunes_task_after_task(keep: int, block: int, tail: Any) -> None:
    pool = pool64()
    change = {
        key: 0.6 * sum(by_hand(vectors, keep, block, tail)[1:], by_hand(vectors, keep, block, tail)[0])
        for key, vectors in taus(pool).items()
    }
    found = adamerge.merge(pool, "cabs", keep=keep, block=block, tail=tail, scale=0.6)
    close(found, added(pool, change))


def test_by_hand_and_the_order_of_the_tasks_counts() -> None:
    pool = pool_of(w=[[4.0, -3.0, 1.0, 2.0], [1.0, 5.0, 2.0, 0.0]])
    options = {"keep": 1, "block": 2, "scale": 1.0}
    # a first: 4 and 2 are taken, so that b has 5 and 2; b first: 5 and 2, so that a has 4 and 2 as well.
    assert adamerge.merge(pool, "cabs", **options)["w"].tolist() == [4.0, 5.0, 2.0, 2.0]  # type: ignore[arg-type]
    pool = pool_of(w=[[4.0, -3.0, 1.0, 2.0], [6.0, 5.0, 2.0, 3.0]])
    assert adamerge.merge(pool, "cabs", **options)["w"].tolist() == [4.0, 5.0, 2.0, 2.0]  # type: ignore[arg-type]
    other = adamerge.merge(reordered(pool, [1, 0]), "cabs", **options)  # type: ignore[arg-type]
    assert other["w"].tolist() == [6.0, -3.0, 1.0, 3.0]


@given(
    st.integers(1, 4), st.integers(0, 30), st.integers(1, 3), st.sampled_from(["keep", "drop"]), st.integers(0, 300)
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_no_entry_is_of_two_tasks_and_it_equals_the_restatement(
    tasks: Any, length: Any, keep: Any, tail: Any, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    stack = torch.randint(-2, 3, (tasks, length), generator=generator).double()
    found = Cabs(keep, 5, tail).of_tensor("w", torch.zeros(length), stack)
    assert not length or int((found != 0).sum(dim=0).max()) <= 1
    assert torch.equal(found, torch.stack(by_hand(list(stack), keep, 5, tail)))


def test_whole_blocks_of_one_expert_are_itself() -> None:
    alone = pool64(tasks=("digits",))
    close(adamerge.merge(alone, "cabs", keep=8, block=8, scale=1.0), alone.expert("digits"))


def test_a_block_keeps_some_of_its_entries() -> None:
    for keep in (0, 257):
        with pytest.raises(ValueError, match="1 to 256"):
            Cabs(keep=keep)
