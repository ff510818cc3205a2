"""STAR restated in numpy, its identities, and a small case by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from restating import expert, pool64, tau
from spectral_by_hand import Matrix, by_hand, close, only

import adamerge
from adamerge.rules.star import Star


def truncated(delta: Matrix, keep: float) -> Matrix:
    u, s, v = np.linalg.svd(delta, full_matrices=False)
    count, reached = 0, 0.0
    while reached < keep * s.sum():
        reached += s[count]
        count += 1
    again: Matrix = sum(s[i] * np.outer(u[:, i], v[i]) for i in range(count)) * (s.sum() / reached)
    return again


@pytest.mark.parametrize("fused", ["together", "apart"])
@pytest.mark.parametrize(("keep", "scale"), [(0.4, 1.0), (0.75, 2.0)])
def test_it_is_its_equation(keep: float, scale: float, fused: str) -> None:
    pool = pool64()
    expected = by_hand(pool, lambda ds: np.mean([truncated(d, keep) for d in ds], axis=0), scale, fused)
    close(adamerge.merge(pool, "star", keep=keep, scale=scale, fused=fused), expected)


def test_by_hand() -> None:
    # diag(3, 2, 1): 40 % of 6 is reached by the first alone, 60 % by the first two, 50 % exactly by the first.
    pool = only(np.diag([3.0, 2.0, 1.0]).tolist(), np.zeros((3, 3)).tolist())
    for keep, expected in (
        (0.4, [6.0, 0.0, 0.0]),
        (0.5, [6.0, 0.0, 0.0]),
        (0.6, [3.6, 2.4, 0.0]),
        (1.0, [3.0, 2.0, 1.0]),
    ):
        merged = adamerge.merge(pool, Star(keep=keep))["w"]
        torch.testing.assert_close(merged, torch.diag(torch.tensor(expected).double()) / 2)


def test_each_nuclear_norm_stays_and_coefficients_are_those_of_the_average() -> None:
    pool = pool64()
    ruled = Star()(pool)
    key = "visual.transformer.resblocks.0.mlp.c_proj.weight"
    for row, task in enumerate(pool.names):
        own = torch.linalg.svdvals(ruled.vectors[key][row].view(8, 32))
        torch.testing.assert_close(own.sum(), torch.linalg.svdvals(tau(pool, task)[key]).sum())
        assert int((own > 1e-9).sum()) < 8
    assert ruled.coefficients.number == pytest.approx(1 / 3)


def test_whole_spectra_are_the_average_and_equal_experts_that_one() -> None:
    pool = pool64()
    close(adamerge.merge(pool, Star(keep=1.0)), adamerge.merge(pool, "weight_average"))
    for stack in pool.vectors.values():
        stack.copy_(stack[:1].expand_as(stack).clone())
    close(adamerge.merge(pool, Star(keep=1.0)), expert(pool, pool.names[0]))
    with pytest.raises(ValueError, match="keep"):
        Star(keep=0.0)
