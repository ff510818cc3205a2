"""doctor warns of the activation only where the other one makes the expert decisively surer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from conftest import TINY_VIT

from adamerge.diagnosis.activation import activation
from adamerge.diagnosis.findings import Finding
from adamerge.merging import Head
from adamerge.models.clip import ImageEncoder, Model, build_clip, model_config
from adamerge.models.pictures import PictureRules


def found(sharpness: Callable[[bool], float]) -> Finding:
    """The finding on random pictures, with a head that is as sharp as its backbone's activation (quick?) says."""
    torch.manual_seed(0)
    state = ImageEncoder(build_clip(TINY_VIT).visual).state_dict()
    images = torch.randint(256, (16, 3, 4, 4), dtype=torch.uint8)
    weight = torch.randn(5, 4)

    def head(model: Model) -> Head:
        return Head(weight * sharpness(bool(model_config(model).get("quick_gelu"))))

    (finding,) = activation("signs", state, images, head, TINY_VIT, PictureRules(4))
    return finding


def test_surer_with_the_other_activation_is_a_warning_that_says_how_to_choose_it():
    finding = found(lambda quick: 1.0 if quick else 100.0)
    assert finding.status == "warning"
    assert "with QuickGELU, which the backbone has" in finding.text
    assert "backbone.model.quick_gelu=false" in (finding.advice or "")


@pytest.mark.parametrize("sharpness", [1.0, 100.0])
def test_as_sure_with_either_is_fine(sharpness: float):
    assert found(lambda quick: sharpness).status == "ok"


def test_surer_with_its_own_is_fine():
    assert found(lambda quick: 100.0 if quick else 1.0).status == "ok"
