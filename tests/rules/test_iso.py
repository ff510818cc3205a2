"""Iso-C and Iso-CTS restated in numpy, their identities, and small cases by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from restating import pool64, tau
from spectral_by_hand import Matrix, by_hand, close, leading, only, orthonormal

import adamerge
from adamerge.rules.iso_c import IsoC
from adamerge.rules.iso_cts import IsoCts


def iso_c(deltas: list[Matrix]) -> Matrix:
    total = np.sum(deltas, axis=0)
    u, s, v = leading(total, min(total.shape))
    return s.mean() * u @ v


def iso_cts(deltas: list[Matrix], common: float = 0.8) -> Matrix:
    rank, tasks = min(deltas[0].shape), len(deltas)
    outside = round((rank - int(rank * common)) / tasks) * tasks
    u, s, v = leading(np.sum(deltas, axis=0), rank - outside)
    lefts, values, rights = [u], [s], [v]
    for delta in deltas:
        if outside:
            u_t, s_t, v_t = leading(delta - u @ u.T @ delta, outside // tasks)
            lefts, values, rights = [*lefts, u_t], [*values, s_t], [*rights, v_t]
    left = orthonormal(np.concatenate(lefts, axis=1))
    right = orthonormal(np.concatenate(rights).T).T
    return np.concatenate(values).mean() * left @ right


@pytest.mark.parametrize("fused", ["together", "apart"])
def test_iso_c_is_its_equation(fused: str) -> None:
    pool = pool64()
    close(adamerge.merge(pool, "iso_c", fused=fused), by_hand(pool, iso_c, 1.3, fused))


@pytest.mark.parametrize("fused", ["together", "apart"])
@pytest.mark.parametrize("common", [0.8, 0.4])
def test_iso_cts_is_its_equation(fused: str, common: float) -> None:
    pool = pool64()
    expected = by_hand(pool, lambda deltas: iso_cts(deltas, common), 1.5, fused)
    close(adamerge.merge(pool, "iso_cts", fused=fused, common=common), expected)


def test_by_hand() -> None:
    # diag(4, 1) + diag(2, -1) = diag(6, 0) has one direction; diag(4, 1) + diag(2, 1) has two, of mean (6 + 2) / 2.
    one = only([[4.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, -1.0]])
    torch.testing.assert_close(
        adamerge.merge(one, IsoC(1.0))["w"], torch.diag(torch.tensor([6.0, 0.0]).double())
    )
    two = only([[4.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 1.0]])
    torch.testing.assert_close(adamerge.merge(two, IsoC(0.5))["w"], 2.0 * torch.eye(2, dtype=torch.float64))
    # Signs stay: the spectrum is of magnitudes.
    turned = only([[0.0, -3.0], [1.0, 0.0]])
    expected = torch.tensor([[0.0, -2.0], [2.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(adamerge.merge(turned, IsoC(1.0))["w"], expected)


def test_iso_cts_by_hand() -> None:
    # The sum diag(6, 1, 1) leads along the first axis; outside of it each task has one axis of its own:
    # (6 + 1 + 1) / 3 of all three.
    first, second = np.diag([3.0, 1.0, 0.0]).tolist(), np.diag([3.0, 0.0, 1.0]).tolist()
    merged = adamerge.merge(only(first, second), IsoCts(1.0, common=0.5))["w"]
    torch.testing.assert_close(merged, torch.eye(3, dtype=torch.float64) * 8 / 3)


@pytest.mark.parametrize(
    ("rank", "tasks", "shares"),
    [
        *((768, 8, (616, 19)), (768, 14, (614, 11)), (768, 20, (608, 8))),
        *((1024, 8, (816, 26)), (1024, 14, (814, 15)), (1024, 20, (824, 10))),
        *((50, 20, (50, 0)), (10, 4, (10, 0))),  # 2 / 4 is halved to even: none
    ],
)
def test_how_the_rank_is_shared(rank: int, tasks: int, shares: tuple[int, int]) -> None:
    assert IsoCts()._shares(rank, tasks) == shares


def test_shares_never_add_up_to_more_than_the_rank() -> None:
    assert IsoCts(common=0.0)._shares(5, 3) == (2, 1)
    with pytest.raises(ValueError, match="common"):
        IsoCts(common=1.2)


def test_the_nuclear_norm_stays_and_the_spectrum_is_flat() -> None:
    pool = pool64()
    merged = adamerge.merge(pool, IsoC(1.0))
    for key, base in pool.base.items():
        if base.ndim == 2:
            summed = sum(tau(pool, task)[key] for task in pool.names)
            s = torch.linalg.svdvals(merged[key] - base)
            torch.testing.assert_close(s, torch.linalg.svdvals(summed).mean().expand(len(s)))


def test_without_room_for_a_task_iso_cts_is_iso_c() -> None:
    pool = pool64()
    close(adamerge.merge(pool, IsoCts(1.0, common=1.0)), adamerge.merge(pool, IsoC(1.0)), 1e-9)


def test_one_expert_is_itself_only_where_its_spectrum_is_flat() -> None:
    alone = pool64(tasks=("digits",))
    close(adamerge.merge(alone, IsoCts(1.0)), adamerge.merge(alone, IsoC(1.0)), 1e-9)
    flat = only([[0.0, 2.0, 0.0], [-2.0, 0.0, 0.0]])
    for rule in (IsoC(1.0), IsoCts(1.0)):
        torch.testing.assert_close(adamerge.merge(flat, rule)["w"], flat.expert("t0")["w"])


def test_directions_that_the_sum_lacks_stay_away() -> None:
    """As with LoRA experts: what a decomposition completes a matrix with is not the experts'."""
    torch.manual_seed(0)
    left, right = torch.randn(6, 2, dtype=torch.float64), torch.randn(2, 9, dtype=torch.float64)
    tasks = [(left * torch.tensor(scales).double()) @ right for scales in ([1.0, 2.0], [0.5, -1.0])]
    pool = only(*(task.tolist() for task in tasks))
    for rule in (IsoC(1.0), IsoCts(1.0, common=0.5)):
        merged = adamerge.merge(pool, rule)["w"]
        s = torch.linalg.svdvals(merged)
        nuclear = torch.linalg.svdvals(sum(tasks)).sum()
        torch.testing.assert_close(s, torch.tensor([1.0, 1, 0, 0, 0, 0]).double() * nuclear / 2)
        torch.testing.assert_close(merged, left @ torch.linalg.pinv(left) @ merged)
