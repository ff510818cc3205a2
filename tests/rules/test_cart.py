"""CART restated in numpy, its origin in Python, from files and in configs, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from composing import settings
from restating import expert, pool64
from rules.test_streaming import HEADS, MODEL, files
from safetensors.torch import load_file
from spectral_by_hand import close, leading

import adamerge
from adamerge.errors import PoolError
from adamerge.merging import Pool
from adamerge.methods.adamerging import AdaMerging
from adamerge.models.slices import open_vectors
from adamerge.rules.cart import Cart
from adamerge.rules.post import followed
from adamerge.rules.svc import Svc
from adamerge.runs.merging import write_merged
from adamerge.runs.rules import with_own_start


def by_hand(
    pool: Pool, rank: float, scale: float, about: str, fused: str = "together"
) -> dict[str, torch.Tensor]:
    experts = [{k: v.numpy() for k, v in expert(pool, task).items()} for task in pool.names]
    state = {}
    for key in pool.base:
        origin = sum(e[key] for e in experts) / len(experts) if about == "average" else pool.base[key].numpy()
        total = np.zeros_like(origin)
        for e in experts:
            change = e[key] - origin
            if re.search("attn|mlp", key) and not re.search("ln|bias", key):
                cuts = np.split(change, 3) if "in_proj" in key and fused == "apart" else [change]
                kept = []
                for cut in cuts:
                    u, s, v = leading(cut, max(1, int(rank * min(cut.shape))))
                    kept.append(u * s @ v)
                change = np.concatenate(kept)
            total = total + change
        state[key] = torch.from_numpy(np.asarray(origin + scale * total))
    return state


@pytest.mark.parametrize("fused", ["together", "apart"])
@pytest.mark.parametrize(("rank", "scale"), [(0.12, 2.0), (0.5, 1.3)])
def test_it_is_its_equation(rank: float, scale: float, fused: str) -> None:
    pool = pool64()
    found = adamerge.merge(pool, "cart", rank=rank, scale=scale, fused=fused)
    close(found, by_hand(pool, rank, scale, "average", fused))


def test_about_the_base_it_is_task_arithmetic_on_truncated_vectors() -> None:
    pool = pool64()
    close(adamerge.merge(pool, "cart", origin="base"), by_hand(pool, 0.12, 2.0, "base"))
    whole = adamerge.merge(pool, Cart(rank=1.0, scale=0.3, origin="base"))
    close(whole, adamerge.merge(pool, "task_arithmetic", scale=0.3))


def test_untruncated_it_is_the_average_and_one_expert_is_refused() -> None:
    pool = pool64()
    close(adamerge.merge(pool, Cart(rank=1.0)), adamerge.merge(pool, "weight_average"))
    with pytest.raises(PoolError, match="average of one expert"):
        adamerge.merge(pool64(tasks=("digits",)), "cart")
    with pytest.raises(ValueError, match="rank"):
        Cart(rank=0.0)


def test_equal_experts_are_merged_to_that_one() -> None:
    pool = pool64()
    for stack in pool.vectors.values():
        stack.copy_(stack[:1].expand_as(stack).clone())
    close(adamerge.merge(pool, "cart"), expert(pool, pool.names[0]))


def test_coefficients_start_at_the_merge_about_the_average() -> None:
    pool = pool64()
    learned = AdaMerging(Cart()(pool), start=None).double()
    close(learned.merged_state_dict(), by_hand(pool, 0.12, 2.0, "average"))
    assert followed(Cart(), [Svc()]).origin == "average"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_from_files_it_is_about_the_average_too(dtype: Any, tmp_path: Path) -> None:
    base, experts = files(tmp_path, "open_clip")
    pool = adamerge.open_pool(base, experts, HEADS, backbone=MODEL, dtype=dtype)
    vectors = open_vectors(base, experts, MODEL, dtype)
    write_merged(tmp_path / "merged.safetensors", Cart(), vectors, dtype)
    written = load_file(tmp_path / "merged.safetensors")
    for key, value in adamerge.merge(pool, "cart").items():
        assert torch.equal(written[key], value)


def test_a_config_takes_the_rule_s_origin_and_start_unless_it_has_its_own() -> None:
    found = settings("train", "method=adamerging_layerwise", "rule=cart")
    assert found.origin == "average"
    assert with_own_start(found).method.model["start"] is None
    assert settings("merge", "rule=cart", "origin=base").origin == "base"
    assert settings("merge", "rule=ties").origin == "base"
    own = settings("train", "method=adamerging_layerwise", "rule=star")
    assert with_own_start(own).method.model["start"] is not None
