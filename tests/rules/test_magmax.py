"""MagMax entry by entry, its ties and its identities."""

from __future__ import annotations

import torch
from restating import pool64
from small_pools import added, close, pool_of, taus, the_order_of_tasks_does_not_matter
from torch import Tensor

import adamerge
from adamerge.rules.magmax import MagMax


def by_hand(vectors: list[Tensor]) -> Tensor:
    rows = [vector.flatten().tolist() for vector in vectors]
    best = rows[0]
    for row in rows[1:]:
        best = [y if abs(y) >= abs(x) else x for x, y in zip(best, row, strict=True)]
    return torch.tensor(best, dtype=torch.float64).view(vectors[0].shape)


def test_it_is_the_largest_of_each_entry() -> None:
    pool = pool64()
    expected = added(pool, {key: 0.5 * by_hand(vectors) for key, vectors in taus(pool).items()})
    close(adamerge.merge(pool, "magmax"), expected)
    the_order_of_tasks_does_not_matter(pool, "magmax")


def test_by_hand_with_ties_to_the_last_task() -> None:
    pool = pool_of(w=[[1.0, -2.0, 0.0, 3.0], [-1.0, 1.0, 0.0, -3.0], [0.5, 2.0, 0.0, 1.0]])
    close(adamerge.merge(pool, "magmax", scale=1.0), {"w": torch.tensor([-1.0, 2.0, 0.0, -3.0]).double()})


def test_each_task_keeps_what_it_won() -> None:
    pool = pool64()
    ruled = MagMax()(pool)
    for key, stack in ruled.vectors.items():
        assert int((stack != 0).sum(dim=0).max()) == 1
        kept = stack != 0
        assert torch.equal(stack[kept], pool.vectors[key][kept])


def test_one_expert_is_itself() -> None:
    alone = pool64(tasks=("digits",))
    close(adamerge.merge(alone, "magmax", scale=1.0), alone.expert("digits"))
