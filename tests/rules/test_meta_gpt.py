"""MetaGPT's coefficients from the definition, and its identities."""

from __future__ import annotations

import math

import pytest
import torch
from restating import pool64
from small_pools import added, close, pool_of, taus, the_order_of_tasks_does_not_matter

import adamerge


def test_it_is_the_definition() -> None:
    pool = pool64()
    for i, scale in enumerate((1.0, 3.0, 0.5)):
        for stack in pool.vectors.values():
            stack[i] *= scale
    vectors = taus(pool)
    squares = [
        math.fsum(x * x for rows in vectors.values() for x in rows[t].flatten().tolist()) for t in range(3)
    ]
    share = [square / sum(squares) for square in squares]
    change = {key: share[0] * a + share[1] * b + share[2] * c for key, (a, b, c) in vectors.items()}
    close(adamerge.merge(pool, "meta_gpt"), added(pool, change))
    the_order_of_tasks_does_not_matter(pool, "meta_gpt")


def test_by_hand_over_all_tensors() -> None:
    # Squared norms 1 + 4 + 4 = 9 and 0 + 0 + 1 = 1: coefficients 0.9 and 0.1.
    merged = adamerge.merge(pool_of(v=[[1.0, 2.0], [0.0, 0.0]], w=[[2.0], [-1.0]]), "meta_gpt")
    assert merged["v"].tolist() == pytest.approx([0.9, 1.8])
    assert merged["w"].tolist() == pytest.approx([1.8 - 0.1])


def test_equal_norms_are_the_average_and_one_expert_is_itself() -> None:
    pool = pool64()
    norms = torch.stack([stack.square().sum(dim=1) for stack in pool.vectors.values()]).sum(dim=0).sqrt()
    for stack in pool.vectors.values():
        stack /= norms.unsqueeze(1)
    close(adamerge.merge(pool, "meta_gpt"), adamerge.merge(pool, "weight_average"))
    alone = pool64(tasks=("digits",))
    close(adamerge.merge(alone, "meta_gpt"), alone.expert("digits"))


def test_an_expert_that_changed_nothing_has_no_part() -> None:
    pool = pool_of(w=[[1.0, 2.0], [0.0, 0.0]])
    close(adamerge.merge(pool, "meta_gpt"), pool.expert("a"))
