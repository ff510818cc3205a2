"""ProDistill's loop over the blocks, restated (float64, 1e-9)."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from conftest import TASKS
from restating import ADAM, DEPTH, adapt, arithmetic, block, close, embed, expert, images64, pool64

from adamerge.errors import ConfigError
from adamerge.methods import ElementWise
from adamerge.methods.prodistill import BlockByBlock
from adamerge.objectives.alignment import Alignment
from adamerge.objectives.entropy import Entropy
from adamerge.rounds.schedule import Schedule
from adamerge.rules.linear import TaskArithmetic

RULED = TaskArithmetic()
pytestmark = pytest.mark.usefixtures("double_precision")


@pytest.mark.parametrize(("minibatch", "seed"), [(12, 0), (5, 0), (5, 1)])
def test_prodistill(minibatch: int, seed: int) -> None:
    """Three epochs a block; each epoch goes through all tasks' images in minibatches, in an order that it draws."""
    pool, images = pool64(), images64()
    method = ElementWise(RULED(pool)).double()
    schedule = Schedule(2 * 3, batch_size=4, seed=seed)
    adapt(method, Alignment("l2", "sum"), images, schedule, partial(BlockByBlock, minibatch=minibatch))

    merged = arithmetic(pool)
    student = torch.cat([embed(merged, images[task]) for task in TASKS])
    teacher = {task: embed(expert(pool, task), images[task]) for task in TASKS}
    scales, epoch = {}, 0
    for index in range(DEPTH):
        keys = [key for key in pool.keys if f"resblocks.{index}." in key]
        own = {key: torch.full_like(pool.vectors[key], 0.3).requires_grad_() for key in keys}
        teacher = {task: block(expert(pool, task), index, teacher[task]) for task in TASKS}
        wanted = torch.cat([teacher[task] for task in TASKS])

        def theta(own: Any = own) -> Any:
            return {
                k: pool.base[k] + (s * pool.vectors[k]).sum(0).view(pool.base[k].shape)
                for k, s in own.items()
            }

        optimizer = ADAM(own.values())
        for _ in range(3):
            order = schedule.order(12, epoch, "images")
            assert sorted(order) == list(range(12))
            for first in range(0, 12, minibatch):
                chosen = order[first : first + minibatch]
                optimizer.zero_grad()
                ((block(theta(), index, student[chosen]) - wanted[chosen]) ** 2).sum().backward()
                optimizer.step()
            epoch += 1
        student = block(theta(), index, student).detach()
        scales.update(own)
    assert len(method.inner) == len(scales)
    for key, own in zip(method.inner, method.scales, strict=True):
        # A key's bias cannot change the attention: its gradient is rounding, which Adam blows up to steps.
        live = slice(16, None) if key.endswith("in_proj_bias") else slice(None)
        close(own[:, live], scales[key][:, live])


def test_the_order_of_the_images_follows_the_seed() -> None:
    plans = [Schedule(1, seed=seed) for seed in range(3)]
    assert len({tuple(plan.order(12, 0, "images")) for plan in plans}) == 3


def test_an_objective_of_predictions_is_refused() -> None:
    method = ElementWise(TaskArithmetic()(pool64()))
    with pytest.raises(ConfigError, match="Entropy is no distance to the expert's tokens"):
        adapt(method, Entropy(), images64(), Schedule(2))
