"""Surgery, restated (float64, 1e-9)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import TASKS
from restating import (
    ADAM,
    QUIET,
    Given,
    adapt,
    adapter,
    arithmetic,
    clones,
    close,
    expert,
    forward,
    images64,
    pool64,
    seeded,
)
from torch.nn.functional import l1_loss

from adamerge.methods import Surgery, experts
from adamerge.objectives.alignment import Alignment
from adamerge.rules.linear import TaskArithmetic
from adamerge.training import Adaptation, Schedule, run_steps

RULED = TaskArithmetic()
pytestmark = pytest.mark.usefixtures("double_precision")


@pytest.mark.parametrize("normalise", [False, True])
def test_surgery(normalise: bool) -> None:
    pool, images = pool64(), images64()
    method = seeded(lambda: Surgery(RULED(pool), rank=2, normalize=normalise))
    start = clones(method.parameters())
    adapt(
        method,
        Alignment(normalize=normalise),
        images,
        Schedule(2, batch_size=2, batches_per_task=2, update="batch"),
    )

    optimizer = ADAM(start)
    merged = arithmetic(pool)
    for _ in range(2):
        for k, task in enumerate(TASKS):
            for batch in images[task].split(2):
                feature, target = forward(merged, batch)[1], forward(expert(pool, task), batch)[1]
                if normalise:
                    feature, target = (x / x.norm(dim=1, keepdim=True) for x in (feature, target))
                optimizer.zero_grad()
                l1_loss(adapter(feature, start[2 * k], start[2 * k + 1]), target).backward()
                optimizer.step()
    for own, restated in zip(method.parameters(), start, strict=True):
        close(own, restated)


class HandAdam:
    """Adam in the open, with gradients as torch before 2.0 kept them: filled with zeros, not dropped."""

    def __init__(self, parameters: Any, lr: float = 1e-2) -> None:
        self.parameters = list(parameters)
        self.lr = lr
        self.state = [(0, torch.zeros_like(p), torch.zeros_like(p)) for p in self.parameters]

    def zero_grad(self) -> None:
        for p in self.parameters:
            if p.grad is not None:
                p.grad.zero_()

    def step(self) -> None:
        for i, p in enumerate(self.parameters):
            if p.grad is None:
                continue
            t, m, v = self.state[i]
            t, m, v = t + 1, 0.9 * m + 0.1 * p.grad, 0.999 * v + 0.001 * p.grad**2
            self.state[i] = (t, m, v)
            p.data -= self.lr * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)


@pytest.mark.parametrize("zero_fill", [True, False])
def test_with_gradients_filled_with_zeros_the_other_tasks_move_on_by_their_momentum(zero_fill: bool) -> None:
    pool, images = pool64(), images64()
    method = seeded(lambda: Surgery(RULED(pool), rank=2))
    start = clones(method.parameters())
    schedule = Schedule(3, batch_size=2, batches_per_task=2, update="batch", zero_fill=zero_fill)
    adapt(method, Alignment(), images, schedule)

    optimizer = HandAdam(start) if zero_fill else ADAM(start)
    merged = arithmetic(pool)
    for _ in range(3):
        for k, task in enumerate(TASKS):
            for batch in images[task].split(2):
                optimizer.zero_grad()
                feature, target = forward(merged, batch)[1], forward(expert(pool, task), batch)[1]
                l1_loss(adapter(feature, start[2 * k], start[2 * k + 1]), target).backward()
                optimizer.step()
    for own, restated in zip(method.parameters(), start, strict=True):
        close(own, restated)


@pytest.mark.parametrize("zero_fill", [True, False])
def test_zero_filled_gradients_let_momentum_leak_to_the_other_tasks(zero_fill: bool) -> None:
    """Step the first task's adapter alone, once all have momentum."""
    torch.manual_seed(0)
    method = Surgery(TaskArithmetic()(pool64()), rank=2)
    schedule = Schedule(2, batch_size=4, update="task", zero_fill=zero_fill)
    module = Adaptation(method, Alignment(), ADAM, schedule, None, experts(pool64()))
    run_steps(
        module, Given(images64()), 2, trainer=QUIET
    )  # two: the first leaves `down` where it is, for `up` is zero
    optimizer = module.trainer.optimizers[0]
    before = [p.detach().clone() for p in method.adapters[1].parameters()]
    module.loop.prepare(optimizer)
    representation = method.encode(images64()["signs"])
    target = module.loop.teacher.encode(images64()["signs"], "signs")
    Alignment()(method, method.correct(representation, "signs"), "signs", target).backward()
    optimizer.step()
    moved = [not torch.equal(a, b) for a, b in zip(before, method.adapters[1].parameters(), strict=True)]
    assert all(moved) if zero_fill else not any(moved)
