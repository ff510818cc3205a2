"""SLERP by its formula, the Karcher mean by gradient descent on vectors themselves, and what has no mean."""

from __future__ import annotations

import math

import pytest
import torch
from restating import pool64
from small_pools import close, pool_of, the_order_of_tasks_does_not_matter
from torch import Tensor

import adamerge
from adamerge.errors import PoolError
from adamerge.rules.karcher import Karcher


def slerp_by_hand(first: Tensor, second: Tensor, share: float) -> Tensor:
    """The great arc between directions, with the length on the line between lengths."""
    a, b = first / first.norm(), second / second.norm()
    angle = math.acos(float((a * b).sum().clamp(-1.0, 1.0)))
    length = (1 - share) * float(first.norm()) + share * float(second.norm())
    arc = (math.sin((1 - share) * angle) * a + math.sin(share * angle) * b) / math.sin(angle)
    return length * arc


def mean_by_hand(tensors: list[Tensor], weights: list[float]) -> Tensor:
    """Steps along the sphere in the whole space, many and small ones."""
    units = [tensor / tensor.norm() for tensor in tensors]
    point = torch.stack(units).sum(dim=0)
    point = point / point.norm()
    for _ in range(400):
        step = torch.zeros_like(point)
        for unit, weight in zip(units, weights, strict=True):
            cosine = float((unit * point).sum().clamp(-1.0, 1.0))
            side = unit - cosine * point
            if float(side.norm()) > 1e-14:
                step = step + weight * math.acos(cosine) * side / side.norm()
        point = point + 0.5 * step
        point = point / point.norm()
    return sum(w * float(t.norm()) for w, t in zip(weights, tensors, strict=True)) * point


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_of_two_experts_it_is_slerp(share: float) -> None:
    pool = pool64(tasks=("digits", "signs"))
    found = adamerge.merge(pool, "slerp", shares={"signs": share, "digits": 1 - share})
    first, second = pool.expert("digits"), pool.expert("signs")
    close(found, {key: slerp_by_hand(value, second[key], share) for key, value in first.items()})


@pytest.mark.parametrize("weights", [None, [0.6, 0.1, 0.3]])
def test_of_more_it_is_the_point_of_least_squared_angles(weights: list[float] | None) -> None:
    pool = pool64()
    shares = None if weights is None else dict(zip(pool.names, weights, strict=True))
    experts = [pool.expert(task) for task in pool.names]
    expected = {key: mean_by_hand([e[key] for e in experts], weights or [1 / 3] * 3) for key in pool.base}
    close(adamerge.merge(pool, "karcher", shares=shares), expected)


def test_by_hand() -> None:
    # (2, 0) and (0, 4): half way is (1, 1) / sqrt 2, three long.
    pool = pool_of(w=[[2.0, 0.0], [0.0, 4.0]])
    assert adamerge.merge(pool, "slerp")["w"].tolist() == pytest.approx([3 / math.sqrt(2)] * 2)


def test_equal_experts_are_that_one_and_one_is_itself() -> None:
    alike = pool_of(w=[[1.0, -2.0, 3.0]] * 3, base={"w": [1.0, 1.0, 1.0]})
    close(adamerge.merge(alike, "karcher"), alike.expert("a"))
    alone = pool64(tasks=("digits",))
    close(adamerge.merge(alone, "karcher"), alone.expert("digits"))


def test_the_origin_and_the_order_make_no_difference() -> None:
    pool = pool64()
    close(adamerge.merge(pool, "karcher", origin="average"), adamerge.merge(pool, "karcher"))
    the_order_of_tasks_does_not_matter(pool, "karcher")


def test_experts_that_hardly_differ_are_averaged_to_the_last_digits() -> None:
    """Where angles are so small that 1 - cos is below rounding, arc and chord are one."""
    torch.manual_seed(0)
    base = torch.randn(50, dtype=torch.float64)
    pool = pool_of(w=1e-9 * torch.randn(3, 50), base={"w": base})
    close(adamerge.merge(pool, "karcher"), adamerge.merge(pool, "weight_average"), rtol=1e-7, atol=1e-8)


def test_what_has_no_direction_or_no_shortest_arc_is_averaged() -> None:
    pool = pool_of(z=[[0.0, 0.0], [1.0, 3.0]], o=[[2.0, 1.0], [-2.0, -1.0]], w=[[1.0, 0.0], [0.0, 1.0]])
    found, average = adamerge.merge(pool, "karcher"), adamerge.merge(pool, "weight_average")
    close({key: found[key] for key in "zo"}, {key: average[key] for key in "zo"})
    assert not torch.allclose(found["w"], average["w"])


def test_shares_are_of_the_experts_and_sum_to_one() -> None:
    with pytest.raises(ValueError, match="the sum 1"):
        Karcher({"a": 0.5, "b": 0.2})
    with pytest.raises(PoolError, match="shares: they are of digits, and the experts are"):
        adamerge.merge(pool64(), "karcher", shares={"digits": 1.0})
