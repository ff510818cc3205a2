"""The base, each expert, their average and task arithmetic, by identities."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from adamerge.errors import PoolError
from adamerge.rules.linear import Individual, Pretrained, TaskArithmetic, WeightAverage


def test_task_arithmetic_at_one_over_t_is_the_average(pool: Any) -> None:
    average, arithmetic = WeightAverage()(pool).static(), TaskArithmetic(1 / 3)(pool).static()
    experts = [pool.expert(task) for task in pool.names]
    for key in pool.base:
        torch.testing.assert_close(average[key], arithmetic[key])
        torch.testing.assert_close(average[key], sum(e[key] for e in experts) / 3)


def test_pretrained_is_the_base(pool: Any) -> None:
    assert all(torch.equal(Pretrained()(pool).static()[key], value) for key, value in pool.base.items())


def test_individual_is_each_expert_and_no_single_model(pool: Any) -> None:
    rule = Individual()(pool)
    for task in pool.names:
        for key, value in pool.expert(task).items():
            torch.testing.assert_close(rule.static(task)[key], value)
    with pytest.raises(PoolError, match="one encoder per task"):
        rule.static()
