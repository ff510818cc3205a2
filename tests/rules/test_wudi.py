"""WUDI and OptMerge restated with autograd, the closed form, and their identities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from restating import expert, pool64
from spectral_by_hand import Matrix, by_hand, changed, close, leading
from torch import Tensor

import adamerge
from adamerge.rules.optmerge import OptMerge
from adamerge.rules.wudi import Wudi

LR, STEPS = 1e-2, 7


def adam(start: Tensor, targets: list[Tensor], rows: list[Tensor], norms: list[Tensor]) -> Matrix:
    """The loss as the authors write it, with a product for each task."""
    x = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=LR)
    for _ in range(STEPS):
        optimizer.zero_grad()
        losses = [
            ((x - d) @ row.T).square().sum() / n for d, row, n in zip(targets, rows, norms, strict=True)
        ]
        sum(losses, torch.zeros(())).backward()
        optimizer.step()
    found: Matrix = x.detach().numpy()
    return found


def wudi(deltas: list[Matrix]) -> Matrix:
    own = [torch.from_numpy(np.array(delta)) for delta in deltas]
    return adam(torch.stack(own).sum(dim=0), own, own, [(d * d).sum() for d in own])


def optmerge(deltas: list[Matrix]) -> Matrix:
    mean, each = np.mean(deltas, axis=0), min(deltas[0].shape) // len(deltas)
    targets, rows = [], []
    for delta in deltas:
        u, s, v = leading(delta - mean, each)
        targets.append(torch.from_numpy(u * s @ v + mean))
        _, s, v = leading(delta, each)
        rows.append(torch.from_numpy(np.diag(s) @ v))
    norms = [torch.tensor((delta**2).sum()) for delta in deltas]
    return adam(torch.from_numpy(np.sum(deltas, axis=0)), targets, rows, norms)


@pytest.mark.parametrize("fused", ["together", "apart"])
def test_wudi_is_adam_on_its_objective(fused: str) -> None:
    pool = pool64()
    found = adamerge.merge(pool, "wudi", steps=STEPS, lr=LR, fused=fused)
    close(found, by_hand(pool, wudi, 1.0, fused), 1e-8)


@pytest.mark.parametrize("fused", ["together", "apart"])
def test_optmerge_is_adam_on_its_objective(fused: str) -> None:
    pool = pool64()
    found = adamerge.merge(pool, "optmerge", steps=STEPS, lr=LR, fused=fused)
    close(found, by_hand(pool, optmerge, 1.0, fused), 1e-6)


def test_the_closed_form_solves_the_normal_equations_and_adam_comes_nearer_to_it() -> None:
    pool = pool64()
    key = "visual.transformer.resblocks.0.mlp.c_fc.weight"
    deltas = pool.vectors[key].view(3, 32, 8)
    squares = [d.T @ d / (d * d).sum() for d in deltas]
    gram = sum(squares)
    pulled = sum(d @ square for d, square in zip(deltas, squares, strict=True))
    closed = adamerge.merge(pool, Wudi(solver="closed"))[key] - pool.base[key]
    torch.testing.assert_close(closed @ gram, pulled, rtol=1e-6, atol=1e-7)
    distances = [
        float((adamerge.merge(pool, Wudi(steps=steps, lr=1e-2))[key] - pool.base[key] - closed).norm())
        for steps in (0, 20, 200)
    ]
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < 0.01 * distances[0]


@pytest.mark.parametrize("rule", [Wudi(lr=1e-2), Wudi(solver="closed"), OptMerge(lr=1e-2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_expert_is_itself(rule: Wudi | OptMerge, dtype: torch.dtype) -> None:
    """Adam makes whole steps of what rounding leaves of a gradient, so that it has to be nothing but zero."""
    alone = pool64(tasks=("digits",)).map(lambda tensor: tensor.to(dtype))
    tolerance = 1e-9 if dtype == torch.float64 or isinstance(rule, Wudi) else 1e-6
    close(adamerge.merge(alone, rule), expert(alone, "digits"), tolerance)


@pytest.mark.parametrize("rule", [Wudi(steps=5, lr=1e-2), Wudi(solver="closed"), OptMerge(steps=5, lr=1e-2)])
def test_a_task_that_changed_nothing_pulls_nowhere(rule: Wudi | OptMerge) -> None:
    pool = changed(pool64(), 1, torch.zeros_like)
    merged = adamerge.merge(pool, rule)
    assert all(value.isfinite().all() for value in merged.values())
    if isinstance(rule, Wudi):
        key = "visual.transformer.resblocks.0.mlp.c_fc.weight"
        two = pool64()
        two = type(two)(
            two.encoder, two.base, {key: pool.vectors[key][[0, 2]]}, ("digits", "signs"), two.heads
        )
        torch.testing.assert_close(merged[key], adamerge.merge(two, rule)[key])
