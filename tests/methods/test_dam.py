"""DAM as FusionBench's clip_safe_concrete runs it, restated (float64, 1e-9)."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from conftest import TASKS
from methods.test_concrete import concrete
from restating import ADAM, adapt, close, entropy_of, forward, images64, logits, pool64, seeded
from torch import Tensor
from torch.nn.functional import cross_entropy

from adamerge.methods import DAM
from adamerge.methods.dam import DefenseAware
from adamerge.objectives.entropy import Entropy
from adamerge.rounds.schedule import Schedule
from adamerge.rules.linear import TaskArithmetic

RULED = TaskArithmetic()
pytestmark = pytest.mark.usefixtures("double_precision")


MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073], dtype=torch.float64).view(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711], dtype=torch.float64).view(3, 1, 1)


def pixels(count: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {t: torch.randint(256, (count, 3, 4, 4), generator=generator, dtype=torch.uint8) for t in TASKS}


def floats(images: dict[str, Tensor]) -> dict[str, Tensor]:
    return {t: x if x.dtype != torch.uint8 else (x.double() / 255 - MEAN) / STD for t, x in images.items()}


def shaken(x: Tensor, delta: Tensor, space: str, bounded: bool) -> Tensor:
    if space == "normalised":
        return (x + delta).clamp(0, 1) if bounded else x + delta
    in_range = x * STD + MEAN + delta
    return ((in_range.clamp(0, 1) if bounded else in_range) - MEAN) / STD


def restated(
    pool: Any, thirds: Any, seed: Any, steps: Any, meta_steps: Any, space: Any, keeps: Any, learns: Any
) -> Any:
    """Three steps a round, each on images of its own; then the coefficients under the last mask."""
    masks = [torch.zeros_like(pool.base[key], requires_grad=True) for key in pool.keys]
    table = torch.full((len(pool.keys), 3), 0.3, requires_grad=True)
    deltas = {t: torch.zeros(3, 4, 4, requires_grad=True) for t in TASKS}
    outer, inner, final = ADAM(masks), torch.optim.Adam([table], lr=1.0), torch.optim.Adam([table], lr=3e-3)
    attack = torch.optim.Adam(deltas.values(), lr=1e-2)
    left = torch.zeros_like(table)
    for step in range(steps):
        draw = min(step, meta_steps)
        first, second, third = thirds
        if step >= meta_steps:
            if step == meta_steps:
                table.data.fill_(0.3)
            loss = entropy_of(pool, merged(pool, table, [m.detach() for m in masks], seed, draw), first)
            table.grad = torch.autograd.grad(loss, table)[0] + left
            final.step()
            left = torch.zeros_like(table)
            continue
        if learns:
            loss = entropy_of(pool, merged(pool, table, masks, seed, draw), first)
            table.grad = torch.autograd.grad(loss, table)[0] + left
            table.data.fill_(0.3)
            inner.step()
        theta = {key: value.detach() for key, value in merged(pool, table, masks, seed, draw).items()}
        attack.zero_grad()
        for task, x in second.items():
            clean = logits(pool.heads[task].weight, forward(theta, x)[1]).argmax(-1)
            z = logits(pool.heads[task].weight, forward(theta, shaken(x, deltas[task], space, False))[1])
            (-cross_entropy(z, clean)).backward()
        attack.step()
        theta = merged(pool, table, masks, seed, draw)
        moved = {t: shaken(x, deltas[t].detach(), space, True) for t, x in third.items()}
        loss = entropy_of(pool, theta, third) + 0.1 * entropy_of(pool, theta, moved)
        *of_masks, of_table = torch.autograd.grad(loss, [*masks, table])
        for mask, gradient in zip(masks, of_masks, strict=True):
            mask.grad = gradient
        outer.step()
        left = of_table if keeps and learns else torch.zeros_like(table)
    return masks, table, deltas


def merged(pool: Any, table: Any, masks: Any, seed: Any, draw: Any) -> Any:
    return concrete(pool, table, masks, seed, draw)


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize("space", ["normalised", "pixels"])
@pytest.mark.parametrize("draw", [pixels, images64], ids=["uint8", "floats"])
def test_dam(keeps: bool, learns: bool, space: str, draw: Any) -> None:
    pool = pool64()
    thirds = [draw(4, seed=i) for i in range(3)]
    method = seeded(lambda: DAM(RULED(pool), 4, learns, space))
    seed = int(method.seed)
    given = thirds if learns else thirds[1:]
    together = {task: torch.cat([part[task] for part in given]) for task in TASKS}
    steps, meta = (4, 3) if learns else (3, 3)
    training = partial(
        DefenseAware, meta_steps=meta if learns else None, perturbation_lr=1e-2, fresh_mask=False, final_lr=3e-3,
        keeps_gradient=keeps,
    )  # fmt: skip
    adapt(method, Entropy(), together, Schedule(steps, batch_size=4, batches_per_task=len(given)), training)
    masks, table, deltas = restated(
        pool, [floats(x) for x in thirds], seed, steps, meta, space, keeps, learns
    )
    close(method.merging.values, table)
    for own, wanted in zip(method.perturbations, deltas.values(), strict=True):
        close(own, wanted)
        assert own.abs().max() > 0
    for own, wanted in zip(method.logits_of_mask, masks, strict=True):
        close(own, wanted)


def test_a_perturbation_is_scaled_down_to_its_norm() -> None:
    method = seeded(lambda: DAM(RULED(pool64()), 4, trigger_norm=2.0)).requires_grad_(False)
    method.perturbations[0].data.fill_(0.01)
    assert float(method.perturbation(TASKS[0]).abs().sum()) == pytest.approx(0.48), "within the norm"
    method.perturbations[1].data.normal_()
    bounded = method.perturbation(TASKS[1])
    assert float(bounded.abs().sum()) == pytest.approx(2.0)
    torch.testing.assert_close(
        bounded / bounded.max(), method.perturbations[1] / method.perturbations[1].max()
    )
