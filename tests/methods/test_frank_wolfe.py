"""FW-Merging, restated in the space of the parameters (float64, 1e-9)."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from conftest import TASKS
from restating import (
    ADAM,
    adapt,
    arithmetic,
    close,
    entropy_of,
    expert,
    forward,
    images64,
    labeled64,
    logits,
    pool64,
)
from torch import Tensor
from torch.nn.functional import cross_entropy

from adamerge.methods import FrankWolfe
from adamerge.methods.frank_wolfe import HardSteps, SoftSteps
from adamerge.objectives.entropy import Entropy
from adamerge.objectives.labels import CrossEntropy
from adamerge.rounds.schedule import Schedule
from adamerge.rules.linear import TaskArithmetic
from adamerge.training import Adaptation

RULED = TaskArithmetic()
pytestmark = pytest.mark.usefixtures("double_precision")


def unequal() -> dict:
    """Another number of labelled images for each task: batches of 4, 4 + 2 and 3."""
    counts = dict(zip(TASKS, (4, 6, 3), strict=True))
    return {
        task: {
            name: field[:n] if name == "images" else (field[0][:n],)
            for name, field in labeled64(6)[task].items()
        }
        for task, n in counts.items()
    }


def gradient_at(pool: Any, theta: Any, task: str, given: Any) -> dict[str, Tensor]:
    """Of the mean cross-entropy of the task's labelled images, image by image."""
    leaves = {key: theta[key].detach().clone().requires_grad_() for key in pool.keys}
    count = len(given["images"])
    for image, label in zip(given["images"], given["target"][0], strict=True):
        z = logits(pool.heads[task].weight, forward({**pool.base, **leaves}, image[None])[1])
        (cross_entropy(z, label[None]) / count).backward()
    return {key: leaf.grad for key, leaf in leaves.items()}


def layers(state: dict[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Its tensors as the layout counts them."""
    named: dict[str, Tensor] = {}
    for key, value in state.items():
        if layout == "hf" and "in_proj" in key:
            third = len(value) // 3
            named |= {f"{key} {i}": value[i * third : (i + 1) * third] for i in range(3)}
        else:
            named[key] = value
    return named


def cosine(a: Any, b: Any) -> float:
    if a.norm() < 1e-12:  # a key's bias cannot change the attention: its gradient is rounding
        return 0.0
    return float((a * b).sum() / (a.norm() * b.norm()))


def close_merge(method: Any, theta: Any, layout: Any) -> None:
    merged = method.merge()
    for key, value in layers({k: merged[k] for k in method.pool.keys}, layout).items():
        close(value, theta[key])


def joined(theta: dict[str, Tensor], pool: Any) -> dict[str, Tensor]:
    """Back to the encoder's tensors."""
    return {
        key: torch.cat([theta[f"{key} {i}"] for i in range(3)]) if key not in theta else theta[key]
        for key in pool.keys
    }


@pytest.mark.parametrize("layout", ["open_clip", "hf"])
@pytest.mark.parametrize("choose", ["layer", "model"])
def test_hard(choose: Any, layout: str) -> None:
    pool, given = pool64(), unequal()
    method = FrankWolfe(RULED(pool), layout=layout).double()
    training = partial(HardSteps, choose=choose)
    adapt(method, CrossEntropy(), given, Schedule(4, batch_size=4), training, optimizer=None)

    start = layers({k: arithmetic(pool)[k] for k in pool.keys}, layout)
    vertices = [layers({k: expert(pool, task)[k] for k in pool.keys}, layout) for task in TASKS] + [start]
    theta, picks = dict(start), list[int]()
    for t in range(4):
        at = joined(theta, pool)
        gradients = [layers(gradient_at(pool, at, task, given[task]), layout) for task in TASKS]
        g = {key: sum(gradient[key] for gradient in gradients) / 3 for key in theta}
        total = [sum(cosine(g[key], v[key]) for key in theta) for v in vertices]
        for key in theta:
            scores = [cosine(g[key], v[key]) for v in vertices] if choose == "layer" else total
            picks.append(scores.index(min(scores)))
            vertex = vertices[picks[-1]][key]
            theta[key] = theta[key] + 0.1 * 2 / (t + 2) * 0.3 * (vertex - theta[key])
    close_merge(method, theta, layout)
    assert len(set(picks)) > 1 or choose == "model"


@pytest.mark.parametrize("layout", ["open_clip", "hf"])
def test_soft(layout: str) -> None:
    """theta <- theta + sum_k lambda_k (theta_k - theta): the vectors of an iteration start at its own merged model."""
    pool, given = pool64(), labeled64(8)
    method = FrankWolfe(RULED(pool), layout=layout).double()
    training = partial(SoftSteps, iterations=3, labeled_images=4, later_start=0.05)
    adapt(method, Entropy(), images64(), Schedule(6, batch_size=4), training, labeled=given)

    experts = {task: layers({k: expert(pool, task)[k] for k in pool.keys}, layout) for task in TASKS}
    theta = layers({key: pool.base[key] for key in pool.keys}, layout)
    for iteration in range(3):
        rows = torch.arange(4 * iteration, 4 * iteration + 4) % 8  # four new images, as long as there are any
        picked: list[str] = []
        for task in TASKS:
            new = {"images": given[task]["images"][rows], "target": (given[task]["target"][0][rows],)}
            g = layers(gradient_at(pool, joined(theta, pool), task, new), layout)
            left = [t for t in TASKS if t not in picked]
            scores = {t: sum(cosine(g[k], experts[t][k]) for k in theta) for t in left}
            picked.append(min(scores, key=lambda t: scores[t]))
        start = 0.3 if iteration == 0 else 0.05
        table = {key: torch.full((3,), start, requires_grad=True) for key in theta}
        optimizer = ADAM(table.values())

        def moved(table: Any = table, theta: Any = theta, picked: Any = picked) -> Any:
            return {
                key: theta[key]
                + sum(table[key][i] * (experts[t][key] - theta[key]) for i, t in enumerate(picked))
                for key in theta
            }

        for _ in range(2):
            optimizer.zero_grad()
            entropy_of(pool, {**pool.base, **joined(moved(), pool)}, images64()).backward()
            optimizer.step()
        theta = {key: value.detach() for key, value in moved().items()}
    close_merge(method, theta, layout)


def test_fewer_experts_than_tasks_are_picked_where_some_are_left_out() -> None:
    """With irrelevant experts only as many are picked as there are tasks, each once."""
    pool = pool64(tasks=(*TASKS, "noise"))
    pool.heads.pop("noise")
    method = FrankWolfe(RULED(pool)).double()
    training = partial(SoftSteps, iterations=1)
    adapt(method, Entropy(), images64(), Schedule(1, batch_size=4), training, labeled=labeled64(4))
    assert method.picked.sum() == 3


def test_each_iteration_looks_at_labelled_images_that_none_has_used_as_long_as_there_are_any() -> None:
    method = FrankWolfe(RULED(pool64())).double()
    given = labeled64(5)
    soft = partial(SoftSteps, iterations=3, labeled_images=2)
    module = Adaptation(method, Entropy(), ADAM, Schedule(3, batch_size=2), labeled=given, loop=soft)
    for iteration, rows in enumerate(([0, 1], [2, 3], [4, 0])):
        for batch in module.loop._few(iteration):
            images = given[batch.task]["images"]
            assert torch.equal(batch.images, images[rows])
            assert torch.equal(batch.target[0], given[batch.task]["target"][0][rows])
