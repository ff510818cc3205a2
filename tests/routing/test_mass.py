"""MASS' router restated in numpy on a hand-written transformer, its choice by hand, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_pool
from numpy.typing import NDArray
from restating import images64, pool64, tau
from rules.test_tsv_m import tsv_m
from spectral_by_hand import by_hand
from statistics_by_hand import entering
from torch import Tensor

from adamerge.errors import PoolError
from adamerge.merging import Pool
from adamerge.models.blocks import blocks
from adamerge.routing.mass import Mass, candidates, prepare
from adamerge.routing.subspaces import residuals
from adamerge.rules.iso_c import IsoC
from adamerge.rules.linear import Individual

KEY = "visual.transformer.resblocks.1.mlp.c_fc.weight"


def lengths(pool: Pool, images: Tensor) -> NDArray[np.float64]:
    """(n, T) || x - V_t^T V_t x || of the class token at the last MLP of TSV-M's whole merge."""
    theta = by_hand(pool, tsv_m, 1.0, "together")
    tokens = entering(theta, images)[KEY].view(len(images), 5, 8)[:, 0].numpy()
    found = np.zeros((len(images), len(pool.names)))
    for t, task in enumerate(pool.names):
        _, _, right = np.linalg.svd(tau(pool, task)[KEY].numpy())
        for i, x in enumerate(tokens):
            rest = x - sum((x @ direction) * direction for direction in right[: 8 // len(pool.names)])
            found[i, t] = np.sqrt(rest @ rest)
    return found


def chosen(distances: NDArray[np.float64]) -> list[list[bool]]:
    """Standardised over the tasks, softmax, those above 0.2, at most three, at least one; image by image."""
    found = []
    for row in -distances:
        z = (row - row.mean()) / (row.std(ddof=1) + 1e-6)
        share = np.exp(z) / np.exp(z).sum()
        order = np.argsort(-share)
        kept = [t for t in order if share[t] > 0.2][:3] or [order[0]]
        found.append([t in kept for t in range(len(row))])
    return found


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_is_its_formula(seed: int) -> None:
    pool, images = pool64(seed=seed), 4 * torch.cat(list(images64(20).values()))
    router = Mass.of(pool, prepare(pool))
    found = router(images).tolist()
    assert found == chosen(lengths(pool, images))
    assert len({tuple(row) for row in found}) > 1


def test_the_choice_by_hand() -> None:
    # Four tasks alike: a quarter each, of which the first three stay. One far nearer than the others: it alone.
    distances = torch.tensor([[1.0, 1.0, 1.0, 1.0], [9.0, 9.0, 1.0, 9.0], [1.0, 1.0, 9.0, 9.0]])
    assert candidates(distances).tolist() == [
        [True, True, True, False],
        [False, False, True, False],
        [True, True, False, False],
    ]
    many = torch.linspace(1, 2, 40).unsqueeze(0)  # none has a fifth: the nearest stays
    assert candidates(many).nonzero().tolist() == [[0, 0]]
    assert candidates(torch.rand(3, 1)).all()


def test_the_choice_of_random_distances_is_that_of_the_loops() -> None:
    distances = torch.rand(300, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert candidates(distances).tolist() == chosen(distances.numpy())


def test_tokens_within_a_subspace_are_at_no_distance_from_it() -> None:
    basis = torch.linalg.qr(torch.randn(3, 8, 2, dtype=torch.float64))[0].mT
    inside = torch.randn(5, 2, dtype=torch.float64) @ basis[1]
    found = residuals(inside, basis)
    assert found.shape == (5, 3)
    assert found[:, 1].max() < 1e-12
    assert found[:, [0, 2]].min() > 1e-3


def test_only_what_lies_before_the_mlp_is_merged_and_nothing_is_left_in_the_encoder() -> None:
    pool = pool64()
    kept = prepare(pool)
    assert kept["bases"].shape == (3, 2, 8)
    behind = {
        key for key in pool.keys if "resblocks.1.mlp" in key or "ln_post" in key or "visual.proj" in key
    }
    assert {key.removeprefix("state/") for key in kept} - {"bases"} == set(pool.keys) - behind
    Mass.of(pool, kept)(images64()["signs"])
    assert not any(module._forward_pre_hooks for b in blocks(pool.encoder) for module in b.modules())


def test_an_expert_without_a_task_is_no_candidate() -> None:
    pool, images = pool64(), images64()["signs"]
    two = replace(pool, heads={task: pool.heads[task] for task in ("scenes", "digits")})
    router = Mass.of(two, prepare(two))
    assert router.tasks == ("scenes", "digits")
    assert router.bases.equal(prepare(pool)["bases"][[2, 1]])
    assert router(images).shape == (4, 2)


@pytest.mark.parametrize(
    ("pool", "words"),
    [
        (IsoC()(pool64()), "keeps none of signs, digits, scenes"),
        (replace(pool64(), finished=True), "keeps none of signs"),
        (Individual()(pool64()), "the experts' own task vectors"),
        (make_pool(), "class token, which this encoder does not have"),
    ],
    ids=["one delta", "finished", "by task", "no class token"],
)
def test_a_pool_without_the_experts_vectors_is_refused(pool: Pool, words: str) -> None:
    with pytest.raises(PoolError, match=words):
        prepare(pool)
    if "none of" in words:
        with pytest.raises(PoolError, match="route by joint, which needs the model alone"):
            prepare(pool)


def test_experts_that_changed_nothing_there_and_an_encoder_without_class_token_are_refused() -> None:
    pool = pool64()
    with pytest.raises(PoolError, match=rf"changed in {KEY}, and none changed it"):
        prepare(replace(pool, vectors={key: v for key, v in pool.vectors.items() if key != KEY}))
    bare = {key: value for key, value in pool.base.items() if "class" not in key}
    with pytest.raises(PoolError, match="class token, which this encoder does not have"):
        prepare(replace(pool, base=bare))
