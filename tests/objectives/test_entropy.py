"""Entropy of predictions: its values, its gradient, both lineages of eps."""

from __future__ import annotations

import math

import pytest
import torch
from objectives.models import known
from torch import Tensor

from adamerge.objectives.entropy import BalancedEntropy, Entropy, entropy


@pytest.mark.parametrize("classes", [2, 10, 397])
def test_uniform_logits_have_entropy_ln_c(classes: int) -> None:
    torch.testing.assert_close(entropy(torch.zeros(3, classes)), torch.full((3,), math.log(classes)))


def test_a_certain_prediction_has_none() -> None:
    logits = torch.full((1, 5), -1e4)
    logits[0, 2] = 1e4
    assert entropy(logits).item() == 0.0


@pytest.mark.parametrize("eps", [0.0, 1e-8])
def test_gradient_equals_finite_differences(eps: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: entropy(z, eps), logits)


def test_eps_is_the_other_lineage_and_almost_the_same() -> None:
    logits = 5 * torch.randn(8, 10, dtype=torch.float64)
    p = logits.softmax(-1)
    torch.testing.assert_close(entropy(logits, 1e-8), -(p * (p + 1e-8).log()).sum(-1))
    torch.testing.assert_close(entropy(logits, 1e-8), entropy(logits), atol=1e-6, rtol=0)


def test_half_precision_logits_are_widened() -> None:
    logits = 100 * torch.randn(4, 10).bfloat16()
    assert entropy(logits).dtype == torch.float32
    torch.testing.assert_close(entropy(logits), entropy(logits.float()))


def test_shift_of_the_logits_changes_nothing() -> None:
    logits = torch.randn(4, 7, dtype=torch.float64)
    torch.testing.assert_close(entropy(logits + 123.0), entropy(logits))


def test_eps_by_hand() -> None:
    """Two even classes and eps 0.1: -(0.5 log 0.6 + 0.5 log 0.6)."""
    assert entropy(torch.zeros(1, 2), 0.1).item() == pytest.approx(-math.log(0.6))


def balanced(logits: Tensor) -> float:
    """In words: group by the predicted class, mean entropy of each group, mean of these."""
    groups: dict[int, list[float]] = {}
    for row in logits.tolist():
        total = sum(math.exp(v) for v in row)
        p = [math.exp(v) / total for v in row]
        groups.setdefault(p.index(max(p)), []).append(-sum(q * math.log(q) for q in p))
    return sum(sum(g) / len(g) for g in groups.values()) / len(groups)


def test_each_predicted_class_counts_alike() -> None:
    torch.manual_seed(0)
    logits = 2 * torch.randn(17, 5, dtype=torch.float64)
    logits[:12, 3] += 4.0  # one class has taken over
    found = known(BalancedEntropy(), logits, logits).item()
    assert found == pytest.approx(balanced(logits), rel=1e-12)
    assert found != pytest.approx(known(Entropy(), logits, logits).item(), rel=1e-3)


def test_as_many_images_of_every_class_give_the_plain_mean() -> None:
    logits = 3 * torch.eye(4, dtype=torch.float64).repeat(3, 1) + torch.rand(12, 4, dtype=torch.float64)
    torch.testing.assert_close(known(BalancedEntropy(), logits, logits), known(Entropy(), logits, logits))


@pytest.mark.parametrize("eps", [0.0, 1e-8])
def test_the_balanced_gradient_equals_finite_differences(eps: float) -> None:
    torch.manual_seed(1)
    logits = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: known(BalancedEntropy(eps), z, z), logits)
