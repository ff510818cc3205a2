"""The label-free estimate as an objective: by hand, and against the estimate of finished runs."""

from __future__ import annotations

import math

import pytest
import torch
from objectives.models import known

from adamerge.evaluation.label_free import estimate
from adamerge.objectives.judged import NegativeEstimate, judged


def test_by_hand() -> None:
    """Model (3/4, 1/4) and (1/2, 1/2), expert (1/5, 4/5) and (1, 0): 0.35 and 0.5."""
    own = torch.tensor([[3.0, 1.0], [1.0, 1.0]]).log()
    expert = torch.tensor([[math.log(0.2), math.log(0.8)], [0.0, -1e4]])
    assert known(NegativeEstimate(), own, expert).item() == pytest.approx(-(0.35 + 0.5) / 2)


def test_restated_in_float64() -> None:
    torch.manual_seed(0)
    own, expert = torch.randn(9, 5, dtype=torch.float64), 2 * torch.randn(9, 5, dtype=torch.float64)

    def softmax(row: list[float]) -> list[float]:
        total = sum(math.exp(v) for v in row)
        return [math.exp(v) / total for v in row]

    pairs = zip(own.tolist(), expert.tolist(), strict=True)
    each = [sum(p * q for p, q in zip(softmax(a), softmax(b), strict=True)) for a, b in pairs]
    assert known(NegativeEstimate(), own, expert).item() == pytest.approx(-sum(each) / 9, rel=1e-13)


def test_a_certain_model_gets_what_its_predictions_are_estimated_at() -> None:
    """The differentiable form is the estimate itself once the model's probabilities are 0 and 1."""
    torch.manual_seed(0)
    predicted, expert = torch.randint(6, (40,)), torch.randn(40, 6, dtype=torch.float64)
    own = 1e4 * torch.nn.functional.one_hot(predicted, 6).double()
    wanted = estimate(predicted, expert.softmax(-1)).value
    assert known(NegativeEstimate(), own, expert).item() == pytest.approx(-wanted, rel=1e-12)
    torch.testing.assert_close(
        judged(own.softmax(-1), expert.softmax(-1)), judged(predicted, expert.softmax(-1))
    )


def test_gradient_equals_finite_differences() -> None:
    torch.manual_seed(0)
    expert = torch.randn(3, 4, dtype=torch.float64)
    own = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: known(NegativeEstimate(), z, expert), own)


def test_half_precision_logits_are_widened() -> None:
    own, expert = 100 * torch.randn(4, 10).bfloat16(), torch.randn(4, 10).bfloat16()
    assert known(NegativeEstimate(), own, expert).dtype == torch.float32
