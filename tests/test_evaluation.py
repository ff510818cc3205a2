"""Calibration against its definitions, worked out here by other means."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adamerge.evaluation.predicting import calibration


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 300), st.integers(2, 12), st.floats(0.1, 20.0), st.integers(0, 1000))
def test_calibration_is_that_of_its_definitions(n: int, classes: int, scale: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, classes, generator=generator)
    labels = torch.randint(classes, (n,), generator=generator)
    found = calibration(logits, labels)
    assert found is not None
    x = logits.double().numpy()
    p = np.exp(x - x.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    sure, right = p.max(axis=1), p.argmax(axis=1) == labels.numpy()
    # Bins [0, 1/15), [1/15, 2/15), ..., [14/15, 1]; the gap of each weighs as many images as it has.
    place = np.digitize(sure, np.linspace(0, 1, 16)[1:-1])
    ece = sum(abs(right[place == b].sum() - sure[place == b].sum()) for b in range(15)) / n
    target = np.eye(classes)[labels.numpy()]
    assert found.ece == pytest.approx(ece, abs=1e-5)
    assert found.nll == pytest.approx(-np.log(p[target == 1]).mean(), rel=1e-6)
    assert found.brier == pytest.approx(((p - target) ** 2).sum(axis=1).mean(), rel=1e-6)


def test_the_extremes() -> None:
    labels = torch.tensor([0, 1, 1, 0])
    sure = 100 * torch.nn.functional.one_hot(labels, 2).float()
    right, wrong = calibration(sure, labels), calibration(sure, 1 - labels)
    assert right is not None
    assert wrong is not None
    assert (right.ece, right.nll, right.brier) == pytest.approx((0, 0, 0), abs=1e-6)
    assert (wrong.ece, wrong.nll, wrong.brier) == pytest.approx((1, 100, 2), abs=1e-6)
    even = calibration(torch.zeros(4, 2), labels)
    assert even is not None
    assert (even.ece, even.nll, even.brier) == pytest.approx((0, np.log(2), 0.5), abs=1e-6)


def test_a_certainty_of_one_belongs_to_the_last_bin() -> None:
    """Certain and wrong beside 0.95 and right: |1 right - 1.95 certain| of two images, in one bin."""
    logits = torch.tensor([[100.0, 0.0], [0.0, 0.0]])
    logits[1, 0] = torch.tensor(0.95 / 0.05).log()
    found = calibration(logits, torch.tensor([1, 0]))
    assert found is not None
    assert found.ece == pytest.approx(0.475, abs=1e-6)


def test_without_labels_there_is_none() -> None:
    assert calibration(torch.zeros(4, 2), None) is None
