"""MaTS against the best point of the Krylov space, in float64, on Gram matrices of its own; and where it ends."""

from __future__ import annotations

import pytest
import torch
from restating import State, expert, images64, pool64
from rules.test_regmean import collected, known
from small_pools import close, the_order_of_tasks_does_not_matter
from torch import Tensor

import adamerge
from adamerge.errors import PoolError
from adamerge.merging import Pool
from adamerge.rules.mats import Mats


def best_of_krylov(weight: Tensor, total: Tensor, pulled: Tensor, steps: int) -> Tensor:
    """The point of start + span{r, r S, r S^2, ...} with the least error in the norm of the system S, which
    conjugate gradients reach in as many steps. All entries are one vector."""
    residual = pulled - weight @ total
    basis: list[Tensor] = []
    power = residual
    for _ in range(steps):
        for known_ in basis + basis:  # twice, to be orthogonal
            power = power - (known_ * power).sum() * known_
        power = power / power.norm()
        basis.append(power)
        power = power @ total
    system = torch.stack([torch.stack([(a * (b @ total)).sum() for b in basis]) for a in basis])
    shares = torch.linalg.solve(system, torch.stack([(a * residual).sum() for a in basis]))
    return weight + sum(share * a for share, a in zip(shares, basis, strict=True))


def by_hand(
    pool: Pool, grams: dict[str, dict[str, Tensor]], scale: float, steps: int, shrink: float
) -> State:
    experts = {task: expert(pool, task) for task in pool.names}
    merged: State = {}
    for key, base in pool.base.items():
        weights = torch.stack([experts[task][key] for task in pool.names])
        if key not in grams[pool.names[0]]:
            merged[key] = weights.sum(dim=0) / len(weights)
            continue
        grams_ = [grams[task][key] for task in pool.names]
        own = torch.stack([shrink * gram + (1.0 - shrink) * gram.diag().diag() for gram in grams_])
        start = base + scale * (weights - base).sum(dim=0)
        merged[key] = best_of_krylov(start, own.sum(dim=0), (weights @ own).sum(dim=0), steps)
    return merged


@pytest.mark.parametrize(("scale", "steps", "shrink"), [(0.3, 1, 1.0), (0.3, 4, 1.0), (0.0, 3, 0.6)])
def test_each_step_is_the_best_of_what_it_has_seen(scale: float, steps: int, shrink: float) -> None:
    pool, images = pool64(), images64(6)
    options = {"start": scale, "iterations": steps, "shrink": shrink}
    merged = adamerge.merge(pool, "mats", images=images, **options)
    close(merged, by_hand(pool, collected(pool, images), scale, steps, shrink), 1e-8, 1e-8)


def test_many_steps_are_regmean_and_one_expert_is_itself() -> None:
    pool, images = pool64(), images64(12)
    merged = adamerge.merge(pool, "mats", images=images, iterations=3000)
    close(merged, adamerge.merge(pool, "regmean", images=images, shrink=1.0), 1e-5, 1e-5)
    alone = pool64(tasks=("digits",))
    merged = adamerge.merge(alone, "mats", images=images, start=1.0, iterations=3)
    close(merged, expert(alone, "digits"), 1e-9, 1e-9)


def test_an_input_that_is_always_zero_stays_where_it_starts() -> None:
    pool = pool64()
    key = "visual.transformer.resblocks.0.mlp.c_fc.weight"
    spoiled = collected(pool, images64(6))
    for grams in spoiled.values():
        grams[key] = grams[key].clone()
        grams[key][3] = 0.0
        grams[key][:, 3] = 0.0
    merged = Mats()(pool, statistics=known(spoiled)).static()[key]
    start = adamerge.merge(pool, "task_arithmetic", scale=0.3)[key]
    torch.testing.assert_close(merged[:, 3], start[:, 3], rtol=1e-6, atol=1e-7)
    assert not torch.allclose(merged[:, 4], start[:, 4], atol=1e-3)


def test_the_order_and_what_makes_no_sense() -> None:
    pool, images = pool64(), images64(6)
    the_order_of_tasks_does_not_matter(pool, "mats", images=images, iterations=5)
    for options, word in (({"iterations": 0}, "iterations"), ({"shrink": -0.1}, "shrink")):
        with pytest.raises(ValueError, match=word):
            Mats(**options)
    with pytest.raises(PoolError, match="learns from unlabeled images"):
        adamerge.merge(pool, "mats")
