"""DC-Merge restated in numpy with whole buffers, as the authors have them, and a small case by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from restating import expert, pool64
from spectral_by_hand import Matrix, by_hand, close, only, orthonormal

import adamerge
from adamerge.rules.dc_merge import DcMerge


def dc_merge(deltas: list[Matrix], keep: float) -> Matrix:
    rank, tasks = min(deltas[0].shape), len(deltas)
    each = rank // tasks
    parts = []
    for delta in deltas:
        u, s, v = np.linalg.svd(delta, full_matrices=False)
        parts.append((u[:, :each], s[:each], v[:each]))
    left = orthonormal(np.concatenate([u for u, _, _ in parts], axis=1))
    right = orthonormal(np.concatenate([v for _, _, v in parts]).T).T
    # What a buffer of `rank` columns has beyond T each answers nothing, as its tasks lie within the others.
    cores = np.zeros((tasks, rank, rank))
    for core, (u, s, v) in zip(cores, parts, strict=True):
        core[: tasks * each, : tasks * each] = left.T @ (u * s @ v) @ right.T
        cut = np.sort(np.abs(core).ravel())[::-1][max(1, int(keep * rank * rank)) - 1]
        core[np.abs(core) < cut] = 0.0
    merged = np.zeros((tasks * each, tasks * each))
    for i in range(tasks * each):
        for j in range(tasks * each):
            total = cores[:, i, j].sum()
            agreeing = [x for x in cores[:, i, j] if x * total > 0]
            if agreeing and i // each == j // each:
                merged[i, j] = sum(agreeing) / len(agreeing)
    found: Matrix = left @ merged @ right
    return found


@pytest.mark.parametrize("fused", ["together", "apart"])
@pytest.mark.parametrize("keep", [1e-3, 0.1, 0.4])
def test_it_is_its_equation(keep: float, fused: str) -> None:
    pool = pool64()
    expected = by_hand(pool, lambda deltas: dc_merge(deltas, keep), 1.4, fused)
    close(adamerge.merge(pool, "dc_merge", keep=keep, scale=1.4, fused=fused), expected, 1e-9)


def test_by_hand() -> None:
    # Axes of their own: M_1 = diag(4, 0) and M_2 = diag(0, -3), each with one entry to keep of the four.
    own = only([[4.0, 0.0], [0.0, 1.0]], [[0.5, 0.0], [0.0, -3.0]])
    torch.testing.assert_close(
        adamerge.merge(own, DcMerge())["w"], torch.tensor([[4.0, 0.0], [0.0, -3.0]]).double()
    )
    # One expert of diag(3, 2, 2, 1): the largest three of 16 entries stay, and of two that are equal both.
    alone = only(np.diag([3.0, 2.0, 2.0, 1.0]).tolist())
    merged = adamerge.merge(alone, DcMerge(keep=2 / 16))["w"]
    torch.testing.assert_close(merged, torch.diag(torch.tensor([3.0, 2.0, 2.0, 0.0])).double())


def test_one_expert_kept_whole_is_itself() -> None:
    alone = pool64(tasks=("digits",))
    close(adamerge.merge(alone, DcMerge(keep=1.0)), expert(alone, "digits"), 1e-9)
    with pytest.raises(ValueError, match="keep"):
        DcMerge(keep=0.0)


def test_a_matrix_of_fewer_directions_than_tasks_is_left_out() -> None:
    pool = pool64(tasks=("digits", "colors", "signs", "shapes", "letters"))
    assert torch.equal(adamerge.merge(pool, "dc_merge")["visual.proj"], pool.base["visual.proj"])
