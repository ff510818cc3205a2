"""Distances to the expert's representation, by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from adamerge.objectives.alignment import Alignment

NO_METHOD: Any = None  # no loss of representations looks at it
OWN = (torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 1.0], [2.0, 0.0]]))
EXPERT = (torch.tensor([[0.0, 4.0], [0.0, 1.0]]), torch.tensor([[1.0, 1.0], [0.0, 1.0]]))


@pytest.mark.parametrize(
    ("options", "first", "second"),
    [
        ({}, 7 / 4, 3 / 4),
        ({"distance": "l2"}, 25 / 4, 5 / 4),
        ({"distance": "l2", "reduction": "sum"}, 25.0, 5.0),
        ({"distance": "cosine"}, 1 / 2, 1 / 2),
        ({"distance": "cosine", "reduction": "sum"}, 1.0, 1.0),
    ],
)
def test_the_parts_distances_are_added(options: Any, first: Any, second: Any) -> None:
    objective = Alignment(**options)
    assert objective(NO_METHOD, OWN, "t", EXPERT).item() == pytest.approx(first + second)
    assert objective(NO_METHOD, OWN[1:], "t", EXPERT[1:]).item() == pytest.approx(second)


def test_the_last_part_of_the_expert_is_brought_to_length_1() -> None:
    value = Alignment(normalize=True)(NO_METHOD, OWN[:1], "t", EXPERT[:1])
    assert value.item() == pytest.approx((3 + 1) / 4)


def test_its_name_says_what_it_measures() -> None:
    assert Alignment().name == "distance to the expert (mean absolute difference)"
    assert Alignment("l2", "sum").name == "distance to the expert (summed squared difference)"
    assert Alignment("cosine").name == "distance to the expert (mean 1 - cosine)"


@pytest.mark.parametrize("options", [{"distance": False}, {"distance": "l3"}, {"reduction": "none"}])
def test_another_distance_or_reduction_is_refused(options: Any) -> None:
    """A value that is none must not become the cosine."""
    with pytest.raises(ValueError, match=f"{next(iter(options))} should be"):
        Alignment(**options)
