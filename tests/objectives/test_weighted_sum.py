"""Sums of objectives: their value, what they compare with, and every mistake a sentence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import yaml
from composing import settings
from objectives.models import known, value

from adamerge.errors import ConfigError
from adamerge.objectives import Agreement, Alignment, CrossEntropy, Entropy, NegativeEstimate, PseudoLabels
from adamerge.objectives.weighted_sum import WeightedSum
from adamerge.settings import instantiate
from adamerge.settings.check import validate
from adamerge.settings.commands import RunSettings, as_yaml
from adamerge.settings.mistakes import Mistakes
from adamerge.settings.terms import look_up_terms


def test_it_is_the_weighted_sum_of_its_terms() -> None:
    torch.manual_seed(0)
    own, expert = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    terms = {"a": Agreement(2.0), "e": Entropy(), "d": Alignment("l2")}
    objective = WeightedSum(terms, {"d": -0.25, "a": 2.0, "e": 0.5})
    p, q = own.softmax(-1), (expert / 2).softmax(-1)
    wanted = (
        2.0 * -4 * (q * (own / 2).log_softmax(-1)).sum(-1).mean()
        + 0.5 * -(p * p.log()).sum(-1).mean()
        - 0.25 * (own - expert).square().mean()
    )
    torch.testing.assert_close(known(objective, own, expert), wanted, rtol=1e-13, atol=0)
    assert objective.target == "expert"
    assert WeightedSum({"e": Entropy()}, {"e": 1.0}).target == "none"
    assert WeightedSum({"l": CrossEntropy(), "e": Entropy()}, {"l": 1.0, "e": 1.0}).target == "labels"


def test_gradient_equals_finite_differences() -> None:
    torch.manual_seed(0)
    expert = torch.randn(3, 4, dtype=torch.float64)
    objective = WeightedSum({"n": NegativeEstimate(), "e": Entropy()}, {"n": 1.5, "e": -0.5})
    own = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: known(objective, z, expert), own)


def test_a_term_without_images_is_left_out() -> None:
    own, expert = torch.tensor([[9.0, 0.0]]), torch.tensor([[0.0, 1.0]])  # the filter drops it
    confident = PseudoLabels(confidence=True)
    both = WeightedSum({"c": confident, "e": Entropy()}, {"c": 1.0, "e": 3.0})
    torch.testing.assert_close(known(both, own, expert), 3 * known(Entropy(), own, expert))
    assert value(WeightedSum({"c": confident}, {"c": 1.0}), own, expert) is None


def of_terms(terms: str) -> Any:
    return settings("train", "objective=sum", f"method.objective.terms={terms}").method.objective


def test_terms_are_looked_up_by_name_with_their_options() -> None:
    made = instantiate(of_terms("{agreement: {weight: 2.0, temperature: 3.0}, entropy: 0.1}"))
    assert made.weights == {"agreement": 2.0, "entropy": 0.1}
    assert isinstance(made.terms["agreement"], Agreement)
    assert made.terms["agreement"].temperature == 3.0
    assert made.name == "2 x soft cross-entropy to the expert (nats) + 0.1 x entropy (nats)"


def test_a_run_folder_reads_its_terms_again() -> None:
    first = settings("train", "objective=sum", "method.objective.terms={agreement: 2.0, entropy: 0.1}")
    plain = yaml.safe_load(as_yaml(first))
    plain.pop("maximise")
    look_up_terms(plain, Mistakes())
    assert validate(plain, RunSettings).method.objective == first.method.objective


@pytest.mark.parametrize(
    ("terms", "why"),
    [
        ("null", r"terms should name objectives and their weights, e\.g\. \{agreement: 1\.0"),
        ("{}", r"is \{objective: weight\}, e\.g\."),
        ("3", r"is \{objective: weight\}, e\.g\."),
        ("{agremeent: 1.0}", "terms.agremeent: no such objective; did you mean 'agreement'"),
        ("{sum: 1.0}", "terms.sum: no such objective; there is agreement"),
        ("{entropy: 0}", r"the weight of entropy should be a number other than 0 \(got 0\)"),
        ("{entropy: inf}", "the weight of entropy should be a number other than 0"),
        ("{entropy: much}", "terms.entropy: is a weight, or"),
        ("{entropy: true}", "terms.entropy: is a weight, or"),
        ("{entropy: {eps: 0.1}}", "terms.entropy: is a weight, or"),
        ("{entropy: {weight: 1.0, eps: -1.0}}", "terms.entropy: eps should not be negative"),
        ("{entropy: {weight: 1.0, epz: 0.1}}", "Entropy has no such option; did you mean 'eps'"),
        ("{labels: 1.0, agreement: 1.0}", "compare with the experts or with labels, not with both"),
        ("{labels: 1.0, entropy: 1.0}", r"WeightedSum learns from labels, which .* does not get"),
    ],
)
def test_a_mistake_is_a_sentence(terms: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        of_terms(terms)


def test_of_python_too() -> None:
    with pytest.raises(ValueError, match="each term should have one weight"):
        WeightedSum({"a": Agreement()}, {"b": 1.0})
