"""DOGE restated with autograd, and what its parts promise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import make_pool, make_vit_pool
from torch import Tensor

from adamerge.errors import PoolError
from adamerge.rules.doge import Doge, gap_gradient, shared_basis

T, ROWS, COLUMNS = 3, 12, 8


def matrices() -> Tensor:
    torch.manual_seed(0)
    return 0.01 * torch.randn(T, ROWS, COLUMNS, dtype=torch.float64)


def objective(tau: Tensor, delta: Tensor, scale: Tensor, gap: str) -> Tensor:
    """As the reference writes it, with every product elementwise."""
    total = torch.zeros((), dtype=torch.float64)
    for j in range(T):
        merged = sum(scale[i] * (tau[i] + delta[i if len(delta) == T else 0]) for i in range(T))
        inner = -tau[j] * merged + tau[j] ** 2
        sums = inner.sum(dim=1) if gap == "row" else inner.sum().reshape(1)
        total = total + (sums**2).sum()
    return total


@pytest.mark.parametrize("gap", ["row", "matrix"])
@pytest.mark.parametrize("shared", [True, False])
def test_the_gradient_in_closed_form_is_that_of_autograd(gap: str, shared: bool) -> None:
    tau = matrices()
    delta = (0.01 * torch.randn(1 if shared else T, ROWS, COLUMNS, dtype=torch.float64)).requires_grad_()
    scale = (0.07 / tau.flatten(1).norm(dim=1)).view(-1, 1, 1)
    objective(tau, delta, scale, gap).backward()
    own = gap_gradient(tau, delta.detach(), scale, gap)
    torch.testing.assert_close(own, delta.grad, rtol=1e-9, atol=1e-12)


def restated(tau: Tensor, variant: str, steps: int) -> Tensor:
    """The loop in plain torch: autograd, projection, Adam."""
    shared = variant == "ta"
    scale = (0.07 / tau.flatten(1).norm(dim=1)).view(-1, 1, 1)
    rank = min(ROWS, COLUMNS)
    each = torch.cat([torch.linalg.svd(x, full_matrices=False)[0][:, : rank // T] for x in tau], dim=1)
    basis = torch.linalg.svd(each, full_matrices=False)[0][:, : rank // (6 if shared else T)]
    delta = torch.zeros(1 if shared else T, ROWS, COLUMNS, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([delta], lr=1e-4)
    for _ in range(steps):
        optimizer.zero_grad()
        objective(tau, delta, scale, "row").backward()
        delta.grad = (torch.eye(ROWS, dtype=torch.float64) - basis @ basis.T) @ delta.grad
        optimizer.step()
    changed = tau + delta.detach()
    return changed * scale if shared else changed


@pytest.mark.parametrize("variant", ["ta", "am"])
def test_three_updates_equal_the_restatement(variant: Any) -> None:
    own = Doge(variant, steps=3)._changed(matrices())
    torch.testing.assert_close(own, restated(matrices(), variant, 3), rtol=1e-9, atol=1e-9)


def test_the_basis_is_orthonormal_and_the_projected_gradient_leaves_it() -> None:
    basis = shared_basis(matrices(), divisor=2)
    assert basis.shape == (ROWS, min(ROWS, COLUMNS) // 2)
    identity = torch.eye(basis.shape[1], dtype=torch.float64)
    torch.testing.assert_close(basis.t() @ basis, identity)
    gradient = torch.randn(1, ROWS, COLUMNS, dtype=torch.float64)
    projected = gradient - basis @ (basis.t() @ gradient)
    torch.testing.assert_close(basis.t() @ projected, torch.zeros_like(basis.t() @ projected))


def test_matrices_of_the_blocks_change_and_all_else_stays_the_base() -> None:
    pool = make_vit_pool()
    ruled = Doge(steps=5)(pool)
    changed = {key for key, value in ruled.static().items() if not torch.equal(value, pool.base[key])}
    assert changed == {k for k in pool.keys if "resblocks" in k and pool.base[k].ndim == 2}
    assert len(changed) == 2 * 4


@pytest.mark.parametrize("variant", ["ta", "am"])
def test_other_tensors_keep_their_task_vectors_by_the_factor_asked_for(variant: Any) -> None:
    pool = make_vit_pool()
    assert "visual.proj" not in Doge(variant, steps=5)(pool).vectors
    ruled = Doge(variant, steps=5, others=0.5)(pool)
    assert ruled.keys == pool.keys
    assert torch.equal(ruled.vectors["visual.proj"], 0.5 * pool.vectors["visual.proj"])


@pytest.mark.parametrize("counted", ["all", "matrices"])
@pytest.mark.parametrize("keep", [0.1, 0.3, 1.0])
def test_the_masks_keep_the_largest_entries_of_those_that_are_counted(keep: float, counted: Any) -> None:
    pool = make_vit_pool()
    # What else the encoder has must not matter where only the blocks' matrices count.
    pool.vectors["visual.proj"].mul_(1e3)
    ruled = Doge("am", steps=1, keep=keep, counted=counted)(pool)
    stacks = [
        stack
        for key, stack in pool.vectors.items()
        if counted == "all" or ("resblocks" in key and pool.base[key].ndim == 2)
    ]
    entries = [torch.cat([stack[t].abs() for stack in stacks]) for t in range(3)]
    # As in TIES: entries at the threshold stay, so one more than the share does.
    cuts = [x.sort().values[max(0, len(x) - int(keep * len(x)) - 1)] for x in entries]
    key = "visual.transformer.resblocks.0.mlp.c_fc.weight"
    for t, cut in enumerate(cuts):
        assert torch.equal(ruled.vectors[key][t] != 0, pool.vectors[key][t].abs() >= cut)


def test_an_expert_that_changed_nothing_adds_nothing_of_its_own() -> None:
    tau = matrices()
    tau[1] = 0.0
    changed = Doge(steps=3)._changed(tau)
    assert changed.isfinite().all()
    assert torch.equal(changed[1], torch.zeros_like(changed[1]))


def test_an_encoder_without_blocks_is_refused() -> None:
    with pytest.raises(PoolError, match=r"transformer blocks"):
        Doge()(make_pool())


def test_keep_is_a_share() -> None:
    with pytest.raises(ValueError, match="share"):
        Doge(keep=0.0)
