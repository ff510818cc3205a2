"""Tinting, Tinting++ and a tinted layer of the encoder, restated (float64, 1e-9)."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import TASKS
from restating import (
    ADAM,
    QUIET,
    Given,
    adapt,
    arithmetic,
    clones,
    close,
    expert,
    forward,
    images64,
    logits,
    pool64,
    tau,
)
from torch import Tensor
from torch.nn.functional import cross_entropy

from adamerge.merging import Head
from adamerge.methods import Tinting, experts
from adamerge.objectives.agreement import Agreement, PseudoLabels, confident
from adamerge.rules.linear import TaskArithmetic
from adamerge.training import Adaptation, Schedule, run_steps

RULED = TaskArithmetic()
pytestmark = pytest.mark.usefixtures("double_precision")


@pytest.mark.parametrize(("confidence", "soft"), [(False, False), (True, False), (False, True)])
def test_tinting(confidence: bool, soft: bool) -> None:
    pool, images = pool64(), images64(8)
    method = Tinting(RULED(pool)).double()
    objective = Agreement() if soft else PseudoLabels(confidence)
    adapt(method, objective, images, Schedule(2, batch_size=8, update="task"))

    table = torch.full((len(pool.keys), 3), 0.3, dtype=torch.float64, requires_grad=True)
    weights = clones(pool.heads[task].weight for task in TASKS)
    biases = [torch.zeros(len(w), dtype=torch.float64, requires_grad=True) for w in weights]
    optimizer = ADAM([table, *weights, *biases])
    for _ in range(2):
        for k, task in enumerate(TASKS):
            theta = {
                key: pool.base[key]
                + sum(table[row, j].clamp(0, 1) * tau(pool, t)[key] for j, t in enumerate(TASKS))
                for row, key in enumerate(pool.keys)
            }
            z = logits(weights[k], forward(theta, images[task])[1], biases[k])
            teacher = logits(pool.heads[task].weight, forward(expert(pool, task), images[task])[1]).softmax(
                -1
            )
            (p_teacher, y_teacher), (p_own, y_own) = teacher.max(-1), z.softmax(-1).max(-1)
            keep = (
                (y_teacher == y_own) | (p_teacher >= p_own) if confidence else torch.ones(8, dtype=torch.bool)
            )
            if not keep.any():
                continue
            optimizer.zero_grad()
            if soft:
                (-(teacher * z.log_softmax(-1)).sum(-1).mean()).backward()
            else:
                cross_entropy(z[keep], y_teacher[keep]).backward()
            optimizer.step()
    close(method.merging.values, table)
    for own, restated in zip([*method.weights, *method.biases], [*weights, *biases], strict=True):
        close(own, restated)


def test_tinting_of_a_layer_in_the_encoder() -> None:
    pool, images = pool64(), images64()
    layer = "visual.transformer.resblocks.1.mlp"
    method = Tinting(RULED(pool), layer, coefficients=None).double()
    adapt(method, PseudoLabels(), images, Schedule(2, batch_size=4, update="task"))

    merged = arithmetic(pool)
    keys = [key for key in pool.keys if key.startswith(layer)]
    own = {task: clones(merged[key] for key in keys) for task in TASKS}
    optimizer = ADAM([p for task in TASKS for p in own[task]])
    for _ in range(2):
        for task in TASKS:
            theta = {**merged, **dict(zip(keys, own[task], strict=True))}
            z = logits(pool.heads[task].weight, forward(theta, images[task])[1])
            target = logits(pool.heads[task].weight, forward(expert(pool, task), images[task])[1]).argmax(-1)
            optimizer.zero_grad()
            cross_entropy(z, target).backward()
            optimizer.step()
    assert len(keys) == 4
    for k, task in enumerate(TASKS):
        for tinted, restated in zip(method.tinted[k], own[task], strict=True):
            close(tinted, restated)


def in_order(orders: Any) -> torch.Tensor:
    """The coefficients after the rounds of plain Tinting that take the tasks in these orders."""
    pool, images = pool64(), images64()
    table = torch.full((len(pool.keys), 3), 0.3, requires_grad=True)
    weights = {task: clones([pool.heads[task].weight])[0] for task in TASKS}
    biases = {task: torch.zeros(len(weights[task]), requires_grad=True) for task in TASKS}
    optimizer = ADAM([table, *weights.values(), *biases.values()])
    for task in itertools.chain(*orders):
        theta = {
            key: pool.base[key] + sum(table[row, j] * tau(pool, t)[key] for j, t in enumerate(TASKS))
            for row, key in enumerate(pool.keys)
        }
        z = logits(weights[task], forward(theta, images[task])[1], biases[task])
        target = logits(pool.heads[task].weight, forward(expert(pool, task), images[task])[1]).argmax(-1)
        optimizer.zero_grad()
        cross_entropy(z, target).backward()
        optimizer.step()
    return table


def test_shuffled_tasks_are_updated_in_the_orders_that_the_seed_draws() -> None:
    """Each round is one of the six orders; which one depends on the round and the seed."""
    results = {}
    for seed in range(4):
        method = Tinting(RULED(pool64())).double()
        schedule = Schedule(2, batch_size=4, update="task", shuffle_tasks=True, seed=seed)
        adapt(method, PseudoLabels(), images64(), schedule)
        orders = [[TASKS[i] for i in schedule.order(3, step, "tasks")] for step in range(2)]
        close(method.merging.values, in_order(orders))
        results[seed] = tuple(map(tuple, orders))
    assert len(set(results.values())) > 1, "the seed decides nothing"
    assert any(first != second for first, second in results.values()), "the round decides nothing"


# The confidence filter (arXiv 2412.19098): probabilities of two classes, chosen by hand.
CASES = {
    "agree, student surer": ([0.9, 0.1], [0.6, 0.4], True),
    "disagree, teacher surer": ([0.6, 0.4], [0.1, 0.9], True),
    "disagree, equally sure": ([0.8, 0.2], [0.2, 0.8], True),
    "disagree, student surer": ([0.9, 0.1], [0.4, 0.6], False),
}


@pytest.mark.parametrize("case", CASES)
def test_confidence_filter(case: Any) -> None:
    own, teacher, kept = CASES[case]
    assert confident(torch.tensor([own]).log(), torch.tensor([teacher]).log()).tolist() == [kept]


class _Answers:
    """A classifier whose features are its logits, with the identity as the teacher's head."""

    def __init__(self) -> None:
        self.pool = SimpleNamespace(heads={"digits": Head(torch.eye(2))})

    def classify(self, features: Any, task: Any) -> Any:
        return features


def test_nothing_confident_is_no_loss_and_no_update() -> None:
    sure, unsure = torch.tensor([[5.0, 0.0]]), torch.tensor([[0.0, 0.1]])
    assert PseudoLabels(confidence=True)(_Answers(), (sure,), "digits", (unsure,)) is None
    assert PseudoLabels(confidence=False)(_Answers(), (sure,), "digits", (unsure,)) is not None

    class Never(PseudoLabels):
        def __call__(self, *args: Any) -> Tensor | None:
            return None

    never: Any = Never()
    method = Tinting(TaskArithmetic()(pool64()))
    before = {key: value.clone() for key, value in method.state_dict().items()}
    module = Adaptation(
        method, never, ADAM, Schedule(2, batch_size=4, update="task"), None, experts(pool64())
    )
    run_steps(module, Given(images64()), 2, trainer=QUIET)
    assert all(torch.equal(before[key], value) for key, value in method.state_dict().items())
    assert module.record["loss"] == 0.0
