"""Breadcrumbs row by row, entry by entry, and its ranges."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from restating import pool64
from small_pools import added, close, pool_of, taus, the_order_of_tasks_does_not_matter
from torch import Tensor

import adamerge
from adamerge.rules.breadcrumbs import Breadcrumbs


def row_by_hand(row: list[float], keep: float, remove: float) -> list[float]:
    """Zero the largest, then zero all but the largest of what is left; the earlier of equals first."""
    places = sorted(range(len(row)), key=lambda i: (-abs(row[i]), i))
    left = places[int(len(row) * remove) :]
    kept = left[: int(len(row) * keep)]
    return [x if i in kept else 0.0 for i, x in enumerate(row)]


def by_hand(vector: Tensor, keep: float, remove: float, scope: str) -> Tensor:
    rows = vector.reshape(1, -1) if scope == "tensor" else vector.reshape(-1, vector.shape[-1])
    found = [row_by_hand(row, keep, remove) for row in rows.tolist()]
    return torch.tensor(found, dtype=torch.float64).view(vector.shape)


@pytest.mark.parametrize("scope", ["row", "tensor"])
def test_it_keeps_the_middle_of_each_row_or_tensor(scope: Any) -> None:
    pool = pool64()
    change = {
        key: 0.4 * sum(by_hand(v, 0.4, 0.2, scope) for v in vectors) for key, vectors in taus(pool).items()
    }
    options = {"keep": 0.4, "remove": 0.2, "scale": 0.4, "scope": scope}
    close(adamerge.merge(pool, "breadcrumbs", **options), added(pool, change))  # type: ignore[arg-type]
    the_order_of_tasks_does_not_matter(pool, "breadcrumbs", **options)


def test_by_hand() -> None:
    # Rows of five: int(0.2 * 5) = 1 goes as an outlier, the int(0.4 * 5) = 2 next stay.
    tau = [[5.0, -1.0, 2.0, -4.0, 0.5], [1.0, 1.0, 1.0, 1.0, 1.0]]
    merged = adamerge.merge(pool_of(w=[tau]), "breadcrumbs", keep=0.4, remove=0.2, scale=1.0)["w"]
    assert merged.tolist() == [[0.0, 0.0, 2.0, -4.0, 0.0], [0.0, 1.0, 1.0, 0.0, 0.0]]
    whole = adamerge.merge(pool_of(w=[tau]), "breadcrumbs", keep=0.4, remove=0.2, scale=1.0, scope="tensor")
    # The largest two of ten go, the next four stay: 2, then the earliest of equal magnitudes.
    assert whole["w"].tolist() == [[0.0, -1.0, 2.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0, 0.0]]


def test_shares_are_rounded_down_and_single_numbers_stay() -> None:
    # int(0.006 * 5) = 0 outliers and int(0.15 * 5) = 0 kept: nothing is left of a short row.
    pool = pool_of(w=[[5.0, -1.0, 2.0, -4.0, 0.5]], s=[3.0])
    merged = adamerge.merge(pool, "breadcrumbs", scale=1.0)
    assert merged["w"].tolist() == [0.0] * 5
    assert float(merged["s"]) == 3.0


def test_all_of_one_expert_is_itself() -> None:
    alone = pool64(tasks=("digits",))
    merged = adamerge.merge(alone, "breadcrumbs", keep=1.0, remove=0.0, scale=1.0)
    close(merged, alone.expert("digits"))


@given(
    st.integers(1, 3),
    st.integers(1, 15),
    st.sampled_from([0.1, 0.3, 1.0]),
    st.sampled_from([0.0, 0.1, 0.5]),
    st.integers(0, 500),
)
@settings(max_examples=60, deadline=None)
def test_equals_the_restatement_where_many_are_equal(
    rows: Any, length: Any, keep: float, remove: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randint(-2, 3, (1, rows, length), generator=generator).double()
    found = Breadcrumbs(keep, remove).of_tensor("w", vector[0], vector)
    assert torch.equal(found[0], by_hand(vector[0], keep, remove, "row"))


def test_shares_are_shares() -> None:
    with pytest.raises(ValueError, match="keep"):
        Breadcrumbs(keep=0.0)
    with pytest.raises(ValueError, match="remove"):
        Breadcrumbs(remove=1.0)
