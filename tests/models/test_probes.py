"""Heads from labeled pictures, against the definition written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adamerge.errors import DataError
from adamerge.models.probes import prototypes, ridge


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


def left_out(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """Each picture's prediction by the regression of the others."""
    rows = []
    for i in range(len(x)):
        others = np.delete(np.arange(len(x)), i)
        bias = np.concatenate([x[others], np.ones((len(others), 1))], axis=1)
        penalised = np.diag([penalty] * x.shape[1] + [0.0])
        solution = np.linalg.solve(bias.T @ bias + penalised, bias.T @ y[others])
        rows.append(np.append(x[i], 1) @ solution)
    return np.stack(rows)


def test_ridge_is_the_regression_whose_left_out_errors_are_least() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(24) % 3
    features = torch.randn(24, 5, generator=generator, dtype=torch.float64) + torch.eye(3, 5)[labels] + 0.5
    x = (features / features.norm(dim=1, keepdim=True)).numpy()
    y = np.eye(3)[labels.numpy()]
    mean = np.trace(np.cov(x.T, bias=True) * len(x)) / 5
    penalties = [mean * 10.0**k for k in range(-6, 3)]
    predicted = [left_out(x, y, penalty) for penalty in penalties]
    best = int(np.argmin([((y - p) ** 2).sum() for p in predicted]))
    assert 0 < best < len(penalties) - 1  # the case tells
    losses = []
    for power in range(9):
        scores = 2.0**power * predicted[best]
        log = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        losses.append(-log[np.arange(24), labels.numpy()].mean())
    scale = 2.0 ** int(np.argmin(losses))
    assert 1 < scale < 256
    bias = np.concatenate([x, np.ones((24, 1))], axis=1)
    penalised = np.diag([penalties[best]] * 5 + [0.0])
    solution = scale * np.linalg.solve(bias.T @ bias + penalised, bias.T @ y)
    head = ridge(features, labels, 3)
    assert head.normalize
    assert head.bias is not None
    np.testing.assert_allclose(head.weight.T, solution[:-1], atol=1e-5)
    np.testing.assert_allclose(head.bias, solution[-1], atol=1e-5)
    again = ridge(features, labels, 3)
    assert torch.equal(again.weight, head.weight)


def test_ridge_takes_more_entries_than_pictures() -> None:
    labels = torch.arange(8) % 4
    features = torch.eye(4, 30)[labels] + 0.1 * torch.randn(8, 30, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ridge(features, labels, 4).logits(features).argmax(1), labels)


def test_ridge_refuses_a_class_of_one_picture() -> None:
    with pytest.raises(DataError, match="1 of 3 classes have fewer than two.*number 2.*prototypes"):
        ridge(torch.randn(5, 2), torch.tensor([0, 1, 0, 1, 2]), 3)
