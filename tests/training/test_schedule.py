"""Orders and learning rates of a schedule: what the seed decides, and what it does not."""

from __future__ import annotations

import math

import pytest
import torch

from adamerge.rounds.batch import Batch
from adamerge.training import Schedule

TASKS = ("signs", "digits", "scenes", "cars", "aerial")


def orders(seed: int, rounds: int = 60) -> list[tuple[str, ...]]:
    plan = Schedule(rounds, 4, update="task", shuffle_tasks=True, seed=seed)
    batches = [Batch(task, torch.zeros(4, 3, 2, 2)) for task in TASKS]
    return [tuple(group[0].task for group in plan.groups(batches, step)) for step in range(rounds)]


def test_the_tasks_order_is_drawn_in_each_round_from_the_seed() -> None:
    first, again, other = orders(0), orders(0), orders(1)
    assert first == again
    assert all(sorted(order) == sorted(TASKS) for order in first)
    assert len(set(first)) > 40, "60 draws of 120 orders"
    assert sum(a == b for a, b in zip(first, other, strict=True)) < 5, "another seed, another order"
    # Each task comes first as often as any other: binomial (600, 1 / 5), standard deviation 9.8.
    firsts = [order[0] for seed in range(10) for order in orders(seed)]
    assert all(abs(firsts.count(task) - 120) < 45 for task in TASKS)


def test_without_shuffling_the_tasks_keep_their_order() -> None:
    plan = Schedule(1, 2, 2, update="task", seed=3)
    batches = [Batch(task, torch.zeros(4, 3, 2, 2)) for task in TASKS]
    assert [[b.task for b in group] for group in plan.groups(batches, 0)] == [[t, t] for t in TASKS]


def test_orders_of_different_things_are_independent() -> None:
    plan = Schedule(1, seed=0)
    assert plan.order(50, 0, "tasks") != plan.order(50, 0, "images")


@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
def test_cosine_decay_is_that_of_cosine_annealing_to_zero(steps: int) -> None:
    parameter = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    annealed = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    for step in range(steps):
        assert 0.5 * Schedule(steps, decay="cosine").factor(step) == pytest.approx(
            optimizer.param_groups[0]["lr"]
        )
        assert Schedule(steps).factor(step) == 1.0
        optimizer.step()
        annealed.step()
    assert math.isclose(Schedule(4, decay="cosine").factor(2), 0.5)
