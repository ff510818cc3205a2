"""Concrete task arithmetic and Concrete AdaMerging, restated (float64, 1e-9)."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from conftest import TASKS, make_vit_pool
from restating import ADAM, adapt, close, entropy_of, images64, pool64, seeded, tau
from torch import Tensor

from adamerge.merging.masks import uniform_noise
from adamerge.methods import Concrete
from adamerge.methods.concrete import Bilevel
from adamerge.objectives.entropy import Entropy
from adamerge.rounds.schedule import Schedule
from adamerge.rules.linear import TaskArithmetic

RULED = TaskArithmetic()
pytestmark = pytest.mark.usefixtures("double_precision")


def concrete(
    pool: Any, table: Tensor, masks: list[Tensor], seed: int, draw: int, binary: bool = False
) -> Any:
    """theta_0 + sum_k lambda tau_k m / mean(m), the mask from the draw's noise."""
    theta = {}
    for row, key in enumerate(pool.keys):
        u = uniform_noise(masks[row], seed, key, draw)
        m = torch.sigmoid((masks[row] + torch.log(u / (1 - u))) / 0.5)
        if binary:  # a Bernoulli sample: kept with probability sigmoid(logit)
            m = (1 - u < torch.sigmoid(masks[row])).double()
            if not m.any():  # the tiny tensors may lose all entries
                theta[key] = pool.base[key]
                continue
        vectors = [table[row, k].clamp(0, 1) * tau(pool, t)[key] * m / m.mean() for k, t in enumerate(TASKS)]
        theta[key] = pool.base[key] + sum(vectors)
    return theta


def test_concrete_task_arithmetic() -> None:
    pool, images = pool64(), images64()
    method = seeded(lambda: Concrete(RULED(pool)))
    seed = int(method.seed)
    adapt(method, Entropy(), images, Schedule(3, batch_size=4))

    masks = [torch.zeros_like(pool.base[key], requires_grad=True) for key in pool.keys]
    table = torch.full((len(pool.keys), 3), 0.3, dtype=torch.float64)
    optimizer = ADAM(masks)
    for draw in range(3):  # a fresh mask after each update
        optimizer.zero_grad()
        entropy_of(pool, concrete(pool, table, masks, seed, draw), images).backward()
        optimizer.step()
    for own, restated in zip(method.logits_of_mask, masks, strict=True):
        close(own, restated)


@pytest.mark.parametrize("fresh_mask", [True, False])
@pytest.mark.parametrize("binary", [True, False])
def test_concrete_adamerging(fresh_mask: bool, binary: bool) -> None:
    """The published loop, its order of operations included: see the reference, section 9."""
    pool, first, second = pool64(), images64(seed=1), images64(seed=2)
    final = "binary" if binary else "relaxed"
    method = seeded(lambda: Concrete(RULED(pool), train_coefficients=True, final_mask=final))
    seed = int(method.seed)
    both = {task: torch.cat([first[task], second[task]]) for task in TASKS}
    training = partial(Bilevel, meta_steps=3, final_lr=3e-3, fresh_mask=fresh_mask)
    adapt(method, Entropy(), both, Schedule(5, batch_size=4, batches_per_task=2), training)

    masks = [torch.zeros_like(pool.base[key], requires_grad=True) for key in pool.keys]
    table = torch.full((len(pool.keys), 3), 0.3, requires_grad=True)
    outer, inner = ADAM(masks), torch.optim.Adam([table], lr=1.0)
    draw = 0
    for _ in range(3):
        # The forward sees the previous round's coefficients; only the step starts from 0.3.
        loss = entropy_of(pool, concrete(pool, table, masks, seed, draw), first)
        (gradient,) = torch.autograd.grad(loss, table)
        table.data.fill_(0.3)
        table.grad = gradient
        inner.step()
        draw += fresh_mask
        outer.zero_grad()
        entropy_of(pool, concrete(pool, table.detach(), masks, seed, draw), second).backward()
        outer.step()
        draw += 1
    table.data.fill_(0.3)
    last = torch.optim.Adam([table], lr=3e-3)
    frozen = [m.detach() for m in masks]
    for _ in range(2):
        last.zero_grad()
        entropy_of(pool, concrete(pool, table, frozen, seed, draw, binary), first).backward()
        last.step()
    close(method.merging.values, table)
    for own, restated in zip(method.logits_of_mask, masks, strict=True):
        close(own, restated)
    expected = concrete(pool, table, frozen, seed, draw, binary)
    for key, value in method.merge().items():
        close(value, expected[key])


def test_a_binary_mask_predicts_and_a_relaxed_one_is_learned() -> None:
    """Concrete TA: relaxed while training, a Bernoulli sample of the same logits afterwards."""
    pool, images = pool64(), images64()
    relaxed, binary = (seeded(partial(Concrete, RULED(pool), final_mask=f)) for f in ("relaxed", "binary"))
    for method in (relaxed, binary):
        adapt(method, Entropy(), images, Schedule(2, batch_size=4))
    for one, other in zip(relaxed.logits_of_mask, binary.logits_of_mask, strict=True):
        assert torch.equal(one, other)
    masks = list(binary.logits_of_mask)
    table = torch.full((len(pool.keys), 3), 0.3)
    expected = concrete(pool, table, masks, int(binary.seed), int(binary.draw), binary=True)
    for i, (key, value) in enumerate(binary.merge().items()):
        close(value, expected[key])
        kept = binary.mask(i)
        assert len(kept.unique()) <= 2
        assert float(kept.mean()) == pytest.approx(1.0)
    assert not torch.allclose(binary.mask(0), relaxed.mask(0))


def test_concrete_learns_one_logit_per_merged_parameter() -> None:
    pool = make_vit_pool()
    numel = sum(value.numel() for value in pool.base.values())
    assert Concrete(pool).trainable_count() == numel
    assert Concrete(pool, train_coefficients=True).trainable_count() == numel + 3 * len(pool.keys)
