"""LiNeS restated entry by entry, and its identities."""

from __future__ import annotations

import re

import pytest
import torch
from post_by_hand import RULES, close, made
from restating import DEPTH, pool64, tau
from torch import Tensor

import adamerge
from adamerge.merging import Pool
from adamerge.rules.linear import TaskArithmetic, WeightAverage
from adamerge.rules.lines import Lines
from adamerge.rules.post import followed
from adamerge.rules.rule import Rule


def lines_by_hand(pool: Pool, rule: Rule, beta: float) -> dict[str, Tensor]:
    merged = made(pool, rule)
    sums: dict[str, Tensor] = {
        key: torch.stack([tau(pool, task)[key] for task in pool.names]).sum(dim=0) for key in pool.vectors
    }
    norms = [sum(float(tensor.abs().sum()) for tensor in of.values()) for of in (sums, merged)]
    alpha = norms[0] / norms[1] / len(pool.names)
    found = dict(pool.base)
    for key, vector in merged.items():
        block = re.search(r"resblocks\.(\d+)\.", key)
        scale = alpha + (beta * int(block[1]) / (DEPTH - 1) if block else 0.0)
        found[key] = pool.base[key] + scale * vector
    return found


@pytest.mark.parametrize(("rule", "coefficient"), RULES)
@pytest.mark.parametrize("beta", [0.0, 0.8])
def test_lines_scales_block_by_block(rule: Rule, coefficient: float, beta: float) -> None:
    pool = pool64()
    close(followed(rule, [Lines(beta)])(pool).static(), lines_by_hand(pool, rule, beta))


def test_lines_without_slope_is_the_average_and_does_not_ask_for_the_rule_s_scale() -> None:
    pool = pool64()
    for rule in (TaskArithmetic(0.3), TaskArithmetic(2.0), WeightAverage()):
        close(adamerge.merge(pool, rule, post=Lines(0.0)), adamerge.merge(pool, "weight_average"))
