from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adamerge.evaluation.label_free import estimate, mean_entropy, near_chance


def test_by_hand() -> None:
    expert = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.5, 0.5]])
    found = estimate(torch.tensor([0, 1, 1, 0]), expert)
    assert found.value == pytest.approx((0.9 + 0.8 + 0.4 + 0.5) / 4)
    # Agreement 3/4, certainty 0.7: between 0.45 and 0.95, two standard errors wider.
    error = 2 * torch.tensor([0.9, 0.8, 0.4, 0.5], dtype=torch.float64).std(correction=0).item() / 2
    assert found.low == pytest.approx(0.45 - error)
    assert found.high == pytest.approx(min(1.0, 0.95 + error))


def test_a_model_that_is_the_expert_is_as_good_as_the_expert_is_certain() -> None:
    expert = torch.softmax(torch.randn(50, 4), dim=1)
    found = estimate(expert.argmax(dim=1), expert)
    assert found.value == pytest.approx(float(expert.double().max(dim=1).values.mean()))


@given(st.integers(0, 2**31 - 1))
def test_of_a_calibrated_expert_it_is_the_accuracy(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    expert = torch.softmax(2 * torch.randn(4000, 5, generator=generator), dim=1)
    labels = torch.multinomial(expert, 1, generator=generator).squeeze(1)
    own = expert.argmax(dim=1)
    predicted = torch.where(
        torch.rand(4000, generator=generator) < 0.3, torch.randint(5, (4000,), generator=generator), own
    )
    accuracy = float((predicted == labels).double().mean())
    found = estimate(predicted, expert)
    assert abs(found.value - accuracy) < 5 * (0.25 / 4000) ** 0.5
    assert found.low <= accuracy <= found.high


def test_entropy_of_uniform_and_of_certain_predictions() -> None:
    assert mean_entropy(torch.zeros(3, 7)) == pytest.approx(math.log(7))
    assert mean_entropy(torch.tensor([[1000.0, 0.0]])) == pytest.approx(0.0)


def test_near_chance_is_that_of_guessing_and_of_one_answer() -> None:
    expert = torch.arange(100) % 10
    guesses = torch.randint(0, 10, (100,), generator=torch.Generator().manual_seed(0))
    assert near_chance(guesses, expert, 10)
    assert near_chance(torch.zeros(100, dtype=torch.long), expert, 10)
    assert not near_chance(torch.where(torch.arange(100) < 40, expert, guesses), expert, 10)
    skewed = torch.where(torch.arange(100) < 30, 0, expert)  # 37 of 100 are 0 to the expert
    assert near_chance(torch.zeros(100, dtype=torch.long), skewed, 10)
    alike = torch.zeros(10, dtype=torch.long)
    assert not near_chance(alike, alike, 10)
    assert not near_chance(alike, alike, 1)
