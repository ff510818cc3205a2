"""SUPERMERGE, flat and hierarchical, restated (float64, 1e-9)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from conftest import TASKS
from restating import ADAM, adapt, close, forward, images64, labeled64, labels64, logits, pool64, tau
from torch import Tensor
from torch.nn.functional import cross_entropy

from adamerge.errors import PoolError
from adamerge.merging import Coefficients
from adamerge.methods import SuperMerge
from adamerge.methods.supermerge import Hierarchical
from adamerge.objectives.labels import CrossEntropy
from adamerge.rounds.schedule import Schedule
from adamerge.rules.linear import TaskArithmetic, WeightAverage

RULED = TaskArithmetic()
pytestmark = pytest.mark.usefixtures("double_precision")


def test_supermerge() -> None:
    pool = pool64()
    method = SuperMerge(RULED(pool)).double()
    adapt(method, CrossEntropy(), labeled64(), Schedule(2, batch_size=4))
    w = torch.full((len(pool.keys), 3), 0.3, dtype=torch.float64).atanh().requires_grad_()
    optimizer = ADAM([w])
    for _ in range(2):
        theta = {
            key: pool.base[key] + sum(torch.tanh(w[row, k]) * tau(pool, t)[key] for k, t in enumerate(TASKS))
            for row, key in enumerate(pool.keys)
        }
        optimizer.zero_grad()
        sum(
            (
                cross_entropy(logits(pool.heads[t].weight, forward(theta, x)[1]), labels64()[t])
                for t, x in images64().items()
            ),
            torch.zeros(()),
        ).backward()
        optimizer.step()
    close(method.merging.values, w)


def supervised(pool: Any, coefficients: Tensor, tasks: Any) -> Tensor:
    """Cross-entropy of the tasks at theta_0 + sum_k coefficients[l, k] tau_k,l."""
    theta = {
        key: pool.base[key] + sum(coefficients[row, k] * tau(pool, t)[key] for k, t in enumerate(TASKS))
        for row, key in enumerate(pool.keys)
    }
    loss: Tensor = sum(  # type: ignore[assignment]  # sum's start is the integer 0
        cross_entropy(logits(pool.heads[t].weight, forward(theta, images64()[t])[1]), labels64()[t])
        for t in tasks
    )
    return loss


def test_groups_are_merged_first_and_then_the_merged_models() -> None:
    """Groups (signs, digits) and (scenes): two rounds within them, two among them."""
    pool = pool64()
    method = SuperMerge(RULED(pool), group_size=2).double()
    adapt(
        method, CrossEntropy(), labeled64(), Schedule(4, batch_size=4), partial(Hierarchical, group_steps=2)
    )

    rows = len(pool.keys)
    groups = [[0, 1], [2]]
    w = torch.full((rows, 3), 0.3).atanh().requires_grad_()
    optimizer = ADAM([w])
    for _ in range(2):
        optimizer.zero_grad()
        for members in groups:
            alone = torch.stack([torch.tanh(w[:, k]) * (k in members) for k in range(3)], dim=1)
            supervised(pool, alone, [TASKS[k] for k in members]).backward()
        optimizer.step()
    u = torch.full((rows, 2), 0.3).atanh().requires_grad_()
    optimizer = ADAM([u])

    def whole() -> Tensor:
        return torch.stack([torch.tanh(w[:, k]).detach() * torch.tanh(u[:, k // 2]) for k in range(3)], dim=1)

    for _ in range(2):
        optimizer.zero_grad()
        supervised(pool, whole(), TASKS).backward()
        optimizer.step()
    close(method.merging.values, w)
    close(method.outer, u)
    close(method.table(), whole())


def test_it_starts_from_the_rules_coefficients_where_tanh_reaches_them() -> None:
    method = SuperMerge(WeightAverage()(pool64()), start=None).double()
    close(method.table(), torch.full((len(pool64().keys), 3), 1 / 3))
    with pytest.raises(PoolError, match=r"between -1 and 1(.|\n)*3 are not, e.g. 1"):
        SuperMerge(replace(pool64(), coefficients=Coefficients(torch.ones(1, 3))), start=None)
    with pytest.raises(ValueError, match="in .-1, 1."):
        SuperMerge(RULED(pool64()), start=1.0)
