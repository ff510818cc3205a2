"""Representation bias: zero for the experts themselves, the same plane for every method."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from commands.conftest import finished

from adamerge.__main__ import main
from adamerge.evaluation.representations import Plane


def representations(home: Path, rule: str) -> dict[str, Any]:
    main(["merge", f"rule={rule}", "suite.tasks=[digits,signs]", "trainer.accelerator=cpu"])
    content: dict[str, Any] = json.loads((finished(home)[rule] / "representations.json").read_text())
    return content


def test_the_experts_have_no_bias_and_all_share_a_plane(home: Path) -> None:
    experts, average, base = (
        representations(home, r) for r in ("individual", "weight_average", "pretrained")
    )
    assert experts["distance"] == pytest.approx({"digits": 0.0, "signs": 0.0}, abs=1e-5)
    points = experts["points"]
    assert torch.allclose(torch.tensor(points["merged"]), torch.tensor(points["expert"]), atol=1e-3)
    assert average["points"]["expert"] == base["points"]["expert"] == experts["points"]["expert"]
    assert experts["task"] == average["task"] == base["task"] == "signs"  # where averaging loses most
    for task in ("digits", "signs"):
        assert 0.1 < average["distance"][task] < base["distance"][task]
    assert len(average["points"]["merged"]) == 256


def test_the_plane_has_the_directions_of_most_variance_in_order() -> None:
    torch.manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(5, 5)).Q
    scores = torch.randn(200, 5) * torch.tensor([3.0, 2.0, 0.1, 0.1, 0.1])
    features = scores @ rotation.t() + 7.0
    points = torch.tensor(Plane(features)(features))
    centred = (scores - scores.mean(dim=0))[:, :2]
    for own, true in zip(points.t(), centred.t(), strict=True):
        assert abs(torch.corrcoef(torch.stack([own, true]))[0, 1]) > 0.99
    assert points.mean(dim=0).abs().max() < 1e-3
    # The same features in another order span the same plane with the same signs.
    again = torch.tensor(Plane(features.flip(0))(features))
    assert torch.allclose(points, again, atol=1e-3)
