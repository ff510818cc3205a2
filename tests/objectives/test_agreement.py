"""Hard and soft agreement with the expert, by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from objectives.models import value

from adamerge.objectives.agreement import Agreement, PseudoLabels


def test_soft_agreement_by_hand() -> None:
    """Teacher (3/4, 1/4), model even: ln 2, whatever the teacher; at temperature 2 four times that."""
    teacher = torch.tensor([[3.0, 1.0]]).log()
    even = torch.zeros(1, 2)
    assert value(Agreement(), even, teacher).item() == pytest.approx(0.6931472)
    assert value(Agreement(2.0), even, teacher).item() == pytest.approx(4 * 0.6931472)


def test_temperature_softens_both() -> None:
    torch.manual_seed(0)
    own, teacher = torch.randn(5, 4, dtype=torch.float64), 3 * torch.randn(5, 4, dtype=torch.float64)
    p, q = (own / 3).softmax(-1), (teacher / 3).softmax(-1)
    torch.testing.assert_close(
        value(Agreement(3.0), own, teacher), -9 * (q * p.log()).sum(-1).mean(), rtol=1e-12, atol=0
    )


def test_hard_labels_are_the_limit_of_a_certain_teacher() -> None:
    torch.manual_seed(0)
    own, teacher = torch.randn(5, 4), torch.randn(5, 4)
    torch.testing.assert_close(value(Agreement(), own, 1e4 * teacher), value(PseudoLabels(), own, teacher))


@pytest.mark.parametrize("make", [Agreement, PseudoLabels])
def test_the_filter_keeps_the_mean_over_what_is_kept(make: Any) -> None:
    own = torch.tensor([[9.0, 0.0], [1.0, 0.0]])
    teacher = torch.tensor(
        [[0.0, 1.0], [0.0, 8.0]]
    )  # the first is less sure than the model, of another class
    kept = value(make(confidence=True), own, teacher)
    torch.testing.assert_close(kept, value(make(), own[1:], teacher[1:]))
    assert value(make(confidence=True), own[:1], teacher[:1]) is None


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_a_temperature_is_a_number_above_0(temperature: Any) -> None:
    with pytest.raises(ValueError, match="temperature should be a number above 0"):
        Agreement(temperature)


def test_the_gradient_is_that_of_the_divergence_from_the_expert() -> None:
    """KL(q || p) is the soft cross-entropy less the expert's own entropy, which nothing trains."""
    torch.manual_seed(0)
    own = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    teacher = 2 * torch.randn(5, 4, dtype=torch.float64)
    q, t = (teacher / 2).softmax(-1), 2.0
    divergence = t * t * (q * (q.log() - (own / t).log_softmax(-1))).sum(-1).mean()
    (wanted,) = torch.autograd.grad(divergence, own)
    loss = value(Agreement(t), own, teacher)
    assert loss is not None
    (found,) = torch.autograd.grad(loss, own)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-15)
