"""TSV-M restated in numpy, its identities, and a small case by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from restating import expert, pool64
from spectral_by_hand import Matrix, by_hand, changed, close, leading, only, orthonormal

import adamerge
from adamerge.rules.tsv_m import TsvM


def tsv_m(deltas: list[Matrix]) -> Matrix:
    each = min(deltas[0].shape) // len(deltas)
    triplets = [leading(delta, each) for delta in deltas]
    left = orthonormal(np.concatenate([u for u, _, _ in triplets], axis=1))
    right = orthonormal(np.concatenate([v for _, _, v in triplets]).T).T
    merged: Matrix = left @ np.diag(np.concatenate([s for _, s, _ in triplets])) @ right
    return merged


@pytest.mark.parametrize("fused", ["together", "apart"])
@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_it_is_its_equation(fused: str, scale: float) -> None:
    pool = pool64()
    close(adamerge.merge(pool, "tsv_m", fused=fused, scale=scale), by_hand(pool, tsv_m, scale, fused))


def test_one_expert_is_itself() -> None:
    alone = pool64(tasks=("digits",))
    close(adamerge.merge(alone, "tsv_m"), expert(alone, "digits"), 1e-9)


def test_by_hand() -> None:
    # Rank 2 and two tasks: one direction each. Along the same one, the left vectors (1, 0), (1, 0) have no nearest
    # orthonormal pair but the half of it: each keeps 1 / sqrt(2) of it on both sides.
    same = only([[4.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 0.5]])
    torch.testing.assert_close(
        adamerge.merge(same, TsvM())["w"], torch.tensor([[3.0, 0.0], [0.0, 0.0]]).double()
    )
    # Along axes of their own they do not meet: the leading direction of each, as strong as it was.
    own = only([[4.0, 0.0], [0.0, 1.0]], [[0.5, 0.0], [0.0, -3.0]])
    torch.testing.assert_close(
        adamerge.merge(own, TsvM())["w"], torch.tensor([[4.0, 0.0], [0.0, -3.0]]).double()
    )


def test_the_terms_of_different_tasks_are_orthogonal() -> None:
    pool = pool64()
    ruled = TsvM(0.6)(pool)
    assert ruled.names == pool.names
    key = "visual.transformer.resblocks.1.mlp.c_fc.weight"
    first, second, third = ruled.vectors[key].view(3, 32, 8)
    for one, other in ((first, second), (first, third), (second, third)):
        assert (one.t() @ other).abs().max() < 1e-12
        assert (one @ other.t()).abs().max() < 1e-12
    for row, vector in enumerate((first, second, third)):
        own = torch.linalg.svdvals(pool.vectors[key][row].view(32, 8))[:2]
        torch.testing.assert_close(torch.linalg.svdvals(vector)[:2], 0.6 * own)


def test_a_matrix_of_fewer_directions_than_tasks_is_left_out() -> None:
    tasks = ("digits", "colors", "signs", "shapes", "letters")
    merged = adamerge.merge(pool := pool64(tasks=tasks), "tsv_m")
    assert torch.equal(merged["visual.proj"], pool.base["visual.proj"])  # 8 x 4
    assert not torch.equal(merged["visual.positional_embedding"], pool.base["visual.positional_embedding"])


def test_a_task_that_changed_nothing_takes_no_direction_from_the_others() -> None:
    pool = pool64()
    still = TsvM()(changed(pool, 1, torch.zeros_like))
    key = "visual.transformer.resblocks.0.attn.out_proj.weight"
    stack = pool.vectors[key].view(3, 8, 8)[[0, 2]]
    triplets = [leading(matrix.numpy(), 2) for matrix in stack]
    left = orthonormal(np.concatenate([u for u, _, _ in triplets], axis=1))
    right = orthonormal(np.concatenate([v for _, _, v in triplets]).T).T
    merged = left @ np.diag(np.concatenate([s for _, s, _ in triplets])) @ right
    torch.testing.assert_close(
        still.static()[key] - pool.base[key], torch.from_numpy(merged), rtol=1e-6, atol=1e-7
    )
    assert not still.vectors[key][1].any()


def test_lora_experts_merge_as_in_core_space() -> None:
    """Core Space writes each B_t A_t in orthonormal bases of all B and all A, as a small matrix, and merges these. An
    expert has no direction outside, so that TSV-M gives the same there."""
    generator = np.random.default_rng(3)
    ups, downs = generator.normal(size=(3, 14, 2)), generator.normal(size=(3, 2, 12))
    left = np.linalg.svd(np.concatenate(list(ups), axis=1), full_matrices=False)[0]
    right = np.linalg.svd(np.concatenate(list(downs)), full_matrices=False)[2]
    small = [(left.T @ up) @ (down @ right.T) for up, down in zip(ups, downs, strict=True)]
    pool = only(*(ups @ downs).tolist())
    expected = torch.from_numpy(left @ tsv_m(small) @ right)
    torch.testing.assert_close(adamerge.merge(pool, TsvM())["w"], expected, rtol=1e-9, atol=1e-9)
