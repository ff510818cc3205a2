"""Model Stock against the formula by hand, in float64."""

from __future__ import annotations

import math

import pytest
from restating import pool64
from small_pools import added, close, pool_of, taus, the_order_of_tasks_does_not_matter
from torch import Tensor

import adamerge


def by_hand(vectors: list[Tensor]) -> Tensor:
    count, cosines = len(vectors), []
    for i in range(count):
        for j in range(i):
            a, b = vectors[i].flatten().tolist(), vectors[j].flatten().tolist()
            dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
            cosines.append(dot / math.sqrt(math.fsum(x * x for x in a) * math.fsum(x * x for x in b)))
    c = sum(cosines) / len(cosines)
    ratio = min(1.0, max(0.0, count * c / (1 + (count - 1) * c)))
    return ratio * sum(vectors[1:], vectors[0]) / count


def test_it_is_the_formula_tensor_by_tensor() -> None:
    pool = pool64()
    for vectors in pool.vectors.values():
        vectors += 0.2  # something in common, so that they point to one side
    expected = added(pool, {key: by_hand(vectors) for key, vectors in taus(pool).items()})
    close(adamerge.merge(pool, "model_stock"), expected)


def test_by_hand() -> None:
    # (3, 4) and (4, 3): cosine 24/25, ratio 2 c / (1 + c) = 48/49 of the mean (3.5, 3.5).
    merged = adamerge.merge(pool_of(w=[[3.0, 4.0], [4.0, 3.0]], v=[[1.0], [-2.0]]), "model_stock")
    assert merged["w"].tolist() == pytest.approx([3.5 * 48 / 49] * 2)
    assert merged["v"].tolist() == [0.0]  # they point away from each other: the base's


def test_one_angle_of_90_degrees_is_the_base_and_equal_experts_are_that_one() -> None:
    close(adamerge.merge(pool_of(w=[[1.0, 0.0], [0.0, 5.0]]), "model_stock"), pool_of(w=[[1.0, 0.0]]).base)
    alike = pool_of(w=[[1.0, 2.0]] * 3)
    close(adamerge.merge(alike, "model_stock"), alike.expert("a"))


def test_an_expert_that_left_the_tensor_as_it_was_has_the_cosine_zero() -> None:
    # cosines 1, 0, 0: c = 1/3, r = 1 / (1 + 2/3) = 3/5, of the mean 2 * (1, 1) / 3.
    merged = adamerge.merge(pool_of(w=[[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]), "model_stock")
    assert merged["w"].tolist() == pytest.approx([0.4, 0.4])


def test_one_expert_is_itself_and_the_order_does_not_matter() -> None:
    alone = pool64(tasks=("digits",))
    close(adamerge.merge(alone, "model_stock"), alone.expert("digits"))
    the_order_of_tasks_does_not_matter(pool64(), "model_stock")
