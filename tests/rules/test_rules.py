"""What holds for rules as such."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from adamerge.rules.linear import Individual, Pretrained, TaskArithmetic, WeightAverage
from adamerge.rules.ties import Ties


@pytest.mark.parametrize("rule", [Pretrained(), Individual(), WeightAverage(), TaskArithmetic(), Ties()])
def test_rules_leave_the_pool_untouched(pool: Any, rule: Any) -> None:
    before = {key: stack.clone() for key, stack in pool.vectors.items()}
    rule(pool).map(lambda t: t.clone())
    assert all(torch.equal(before[key], stack) for key, stack in pool.vectors.items())
