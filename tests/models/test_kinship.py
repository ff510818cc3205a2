"""An expert that does not come from the base is told by distance and cosine of their weight matrices."""

from __future__ import annotations

import pytest
import torch
from checkpoints.formats import MODEL, vision_state

import adamerge
from adamerge.models.kinship import Kinship, kinship


def test_distance_and_cosine_are_those_of_the_matrices() -> None:
    base = {"a": torch.tensor([[3.0, 0.0]]), "b": torch.tensor([[[4.0]]]), "scale": torch.ones(100)}
    moved = {"a": torch.tensor([[0.0, 3.0]]), "b": torch.tensor([[[4.0]]]), "scale": torch.zeros(100)}
    found = kinship(base, moved)
    assert tuple(vars(found).values()) == pytest.approx((18**0.5 / 5, 16 / 25))
    assert kinship(base, {"b": base["b"]}) == Kinship(0.0, 1.0)
    assert kinship(base, {"a": torch.zeros(1, 2)}).doubt is None


@pytest.mark.parametrize(
    ("distance", "cosine", "doubted"),
    [(0.3, 0.95, False), (1.4, 0.0, True), (3.0, 1.0, True), (0.9, 0.4, True)],
)
def test_what_is_beyond_fine_tuning(distance: float, cosine: float, doubted: bool) -> None:
    assert bool(Kinship(distance, cosine).doubt) == doubted


def test_opening_a_pool_says_which_expert_is_not_of_the_base(caplog: pytest.LogCaptureFixture) -> None:
    base = vision_state()
    heads = {task: torch.randn(3, 8) for task in ("near", "far")}
    experts = {
        "near": {key: value + 0.01 * torch.randn_like(value) for key, value in base.items()},
        "far": {key: value.std() * torch.randn_like(value) for key, value in base.items()},
    }
    adamerge.open_pool(base, experts, heads, backbone=MODEL)
    (said,) = [record.getMessage() for record in caplog.records if "another base" in record.getMessage()]
    assert said.startswith("far: ")
