"""Models that are one and the same but for rounding are found, and fine-tuned ones are not."""

from __future__ import annotations

import pytest
import torch
from checkpoints.formats import MODEL, vision_state
from hypothesis import given, settings
from hypothesis import strategies as st

import adamerge
from adamerge.models.likeness import Lookalikes

STATE = vision_state()
NARROW = [torch.float16, torch.bfloat16, torch.float32]


@pytest.mark.parametrize("dtype", NARROW)
def test_rounding_makes_no_other_model(dtype: torch.dtype) -> None:
    narrow = {k: v.to(dtype) for k, v in STATE.items()}
    for one, other in ((STATE, narrow), (narrow, STATE), (narrow, narrow)):
        seen = Lookalikes()
        assert seen.like("base", one) is None
        assert seen.like("x", other) == "base"


@given(st.sampled_from(sorted(STATE)))
@settings(max_examples=30, deadline=None)
def test_training_of_any_one_tensor_does(key: str) -> None:
    seen = Lookalikes()
    seen.like("base", STATE)
    assert seen.like("x", STATE | {key: STATE[key] + 1e-3 * torch.randn_like(STATE[key])}) is None


def test_a_missing_projection_does_not_matter() -> None:
    seen = Lookalikes()
    seen.like("base", STATE)
    assert seen.like("x", {k: v for k, v in STATE.items() if k != "visual.proj"}) == "base"


def test_a_pool_says_it_once_for_all(caplog: pytest.LogCaptureFixture) -> None:
    experts = {"Cars": vision_state(1), "DTD": vision_state(1), "SUN": STATE, "GTSRB": vision_state(2)}
    heads = {task: torch.ones(3, 8) for task in experts}
    adamerge.open_pool(STATE, experts, heads, backbone=MODEL)
    (said,) = [r.getMessage() for r in caplog.records if "Up to rounding" in r.getMessage()]
    assert "DTD equals Cars, SUN equals the base model." in said
