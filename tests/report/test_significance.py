"""Tests and intervals against sums by hand and the binomial distribution's own."""

from __future__ import annotations

import math
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest

from adamerge.report.significance import (
    holm,
    interval,
    mcnemar,
    replicates,
    standard_error,
    standard_error_of_mean,
)

Z = NormalDist().inv_cdf(0.975)


@pytest.mark.parametrize(
    ("first", "second", "exact", "mid"),
    [
        (2, 8, 2 * (1 + 10 + 45) / 1024, (2 * (1 + 10 + 45) - 45) / 1024),
        (8, 2, 2 * (1 + 10 + 45) / 1024, (2 * (1 + 10 + 45) - 45) / 1024),
        (0, 5, 2 / 32, 1 / 32),
        (3, 3, 1.0, 1.0),
        (0, 0, 1.0, 1.0),
    ],
)
def test_mcnemar_by_hand(first: int, second: int, exact: float, mid: float) -> None:
    test = mcnemar(first, second)
    assert (test.only_first, test.only_second) == (first, second)
    assert test.exact == pytest.approx(exact, rel=1e-12)
    assert test.mid == pytest.approx(mid, rel=1e-12)


def test_mcnemar_of_many_pictures_is_the_sum_of_fractions() -> None:
    n, fewer = 2900, 1380
    tail = sum(math.comb(n, i) for i in range(fewer + 1))
    test = mcnemar(fewer, n - fewer)
    assert test.exact == pytest.approx(float(Fraction(2 * tail, 2**n)), rel=1e-9)
    assert test.mid == pytest.approx(float(Fraction(2 * tail - math.comb(n, fewer), 2**n)), rel=1e-9)
    assert mcnemar(0, 5000).exact == 0.0  # below the smallest number there is


def right(count: int, n: int) -> np.ndarray:
    """(1, n): the first `count` pictures are classified rightly."""
    return (np.arange(n) < count)[None]


def test_an_interval_is_the_binomial_one() -> None:
    """Of an accuracy of 0.7 on 2,000 pictures, and of the mean with a task of 0.9 on 500."""
    draws = replicates(["a", "b"], {"m": {"a": right(1400, 2000), "b": right(450, 500)}})["m"]
    errors = [math.sqrt(0.7 * 0.3 / 2000), math.sqrt(0.9 * 0.1 / 500)]
    both = math.sqrt(errors[0] ** 2 + errors[1] ** 2) / 2
    for column, share, error in ((0, 0.8, both), (1, 0.7, errors[0]), (2, 0.9, errors[1])):
        low, high = interval(draws[:, column])
        assert low == pytest.approx(share - Z * error, abs=0.15 * error)
        assert high == pytest.approx(share + Z * error, abs=0.15 * error)
    assert standard_error(0.7, 2000) == pytest.approx(errors[0])
    assert standard_error_of_mean(errors) == pytest.approx(both)


def test_a_difference_is_paired_picture_by_picture() -> None:
    """Of 1,000 pictures one model alone gets 30 right, the other 10: the rest says nothing of the difference."""
    first, second = np.zeros((1, 1000), dtype=bool), np.zeros((1, 1000), dtype=bool)
    first[0, :530] = True
    second[0, :500] = second[0, 530:540] = True
    draws = replicates(["a"], {"first": {"a": first}, "second": {"a": second}})
    low, high = interval(draws["first"][:, 0] - draws["second"][:, 0])
    error = math.sqrt(0.04 - 0.02**2) / math.sqrt(1000)
    assert low == pytest.approx(0.02 - Z * error, abs=0.15 * error)
    assert high == pytest.approx(0.02 + Z * error, abs=0.15 * error)
    assert low > 0  # apart they overlap by far
    assert interval(draws["first"][:, 0])[0] < interval(draws["second"][:, 0])[1]


def test_seeds_are_drawn_too() -> None:
    """Two seeds, one of which gets everything right: a quarter of the draws has it alone, a quarter has it not."""
    both = np.stack([np.ones(50, dtype=bool), np.zeros(50, dtype=bool)])
    draws = replicates(["a", "b"], {"m": {"a": both, "b": both}})["m"]
    assert set(np.unique(draws)) == {0.0, 0.5, 1.0}
    assert (draws == draws[:, :1]).all()  # a run stands for all its tasks
    assert (draws[:, 0] == 0.5).mean() == pytest.approx(0.5, abs=0.05)
    alone = replicates(["a"], {"m": {"a": both[:1]}})["m"]
    assert (alone == 1).all()


def test_draws_are_the_same_whoever_is_compared() -> None:
    """One seed draws one thing; more rows than fit at once make no difference to their number."""
    rng = np.random.default_rng(3)
    first, second = (rng.random((2, 9000)) < 0.6 for _ in range(2))
    alone = replicates(["a"], {"m": {"a": first}}, count=300)["m"]
    beside = replicates(["a"], {"n": {"a": second}, "m": {"a": first}}, count=300)["m"]
    np.testing.assert_array_equal(alone, beside)
    assert len(np.unique(alone)) > 100


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
