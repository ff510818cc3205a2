"""What the restatements of post-rules stand on: rules that make a vector per task or one, and what they made."""

from __future__ import annotations

import torch
from torch import Tensor

from adamerge.merging import Pool
from adamerge.rules.linear import TaskArithmetic
from adamerge.rules.rule import Rule
from adamerge.rules.ties import Ties


class Delta(Rule):
    """A rule that gives one merged vector."""

    gives = "delta"

    def of_tensor(self, key: str, base: Tensor, stack: Tensor) -> Tensor:
        return 0.7 * stack.sum(dim=0, keepdim=True)


# With the coefficient of its static merge.
RULES: list[tuple[Rule, float]] = [(TaskArithmetic(0.3), 0.3), (Ties(0.4), 0.3), (Delta(), 1.0)]


def made(pool: Pool, rule: Rule) -> dict[str, Tensor]:
    """sum_t v_t of what a rule makes of each tensor."""
    return {key: stack.sum(dim=0).view(pool.base[key].shape) for key, stack in rule(pool).vectors.items()}


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for key, value in expected.items():
        # A coefficient that is one number is one of float32.
        torch.testing.assert_close(found[key], value, rtol=1e-6, atol=1e-7)
