"""Heads from labeled pictures, against the definition written out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adamerge.errors import DataError
from adamerge.models.probes import prototypes


def test_two_classes_by_hand() -> None:
    features = torch.tensor([[2.0, 0.0], [0.0, 3.0], [0.0, 1.0]])
    head = prototypes(features, torch.tensor([0, 1, 1]), 2)
    # Class means (1, 0) and (0, 1); their mean (1/2, 1/2).
    assert torch.equal(head.weight, torch.tensor([[50.0, -50.0], [-50.0, 50.0]]))
    assert head.bias is None
    assert head.normalize


@given(st.integers(0, 1000))
def test_predictions_are_those_of_the_nearest_class_mean(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(40, 6, generator=generator) + 2.0
    labels = torch.arange(40) % 5
    head = prototypes(features, labels, 5)
    unit = features / features.norm(dim=1, keepdim=True)
    means = torch.stack([unit[labels == c].mean(0) for c in range(5)])
    means = means / means.norm(dim=1, keepdim=True)
    assert torch.equal(head.logits(features).argmax(1), (unit @ means.T).argmax(1))
    assert torch.allclose(head.weight.sum(0), torch.zeros(6), atol=1e-3)


def test_a_class_without_a_picture_is_refused() -> None:
    with pytest.raises(DataError, match="1 of 3 classes have no labeled picture.*number 1"):
        prototypes(torch.randn(4, 2), torch.tensor([0, 2, 0, 2]), 3)
