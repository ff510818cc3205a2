"""What holds for every rule on matrices, from the day its YAML is there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from restating import pool64
from spectral_by_hand import changed, close
from torch import Tensor

import adamerge
from adamerge.merging import Pool
from adamerge.methods.adamerging import AdaMerging
from adamerge.rules.on_matrices import OnMatrices
from adamerge.runs.merging import rule_named
from adamerge.settings.groups import choices

NAMED = [name for name in choices("rule") if isinstance(rule_named(name), OnMatrices)]
# A few large steps tell as much as the published small ones.
FEW: dict[str, dict[str, Any]] = {rule: {"steps": 3, "lr": 1e-2} for rule in ("wudi", "optmerge")}
IN_PROJ = "visual.transformer.resblocks.0.attn.in_proj_weight"


def merge(pool: Pool, name: str, **options: Any) -> dict[str, Tensor]:
    return adamerge.merge(pool, name, **{**FEW.get(name, {}), **options})


def rows(pool: Pool, order: list[int]) -> Pool:
    names = tuple(pool.names[i] for i in order)
    return replace(pool, names=names, vectors={key: stack[order] for key, stack in pool.vectors.items()})


def test_these_are_they() -> None:
    assert {"iso_c", "iso_cts", "tsv_m", "star", "wudi", "dc_merge", "optmerge"} <= set(NAMED)


@pytest.mark.parametrize("name", NAMED)
def test_what_is_no_matrix_is_the_scaled_mean(name: str) -> None:
    """Of matrices it is the sum that counts, of all else the mean; one scale is on both."""
    pool = pool64()
    merged = merge(pool, name, scale=0.7)
    for key, base in pool.base.items():
        mean = pool.vectors[key].mean(dim=0).view(base.shape)
        if base.ndim != 2:
            torch.testing.assert_close(merged[key], base + 0.7 * mean)
        else:
            assert not torch.allclose(merged[key], base + 0.7 * mean), key


@pytest.mark.parametrize("name", NAMED)
def test_a_text_projection_is_no_matrix_to_it(name: str) -> None:
    pool = pool64()
    pool = replace(
        pool,
        base={"text_projection": pool.base["visual.proj"]},
        vectors={"text_projection": pool.vectors["visual.proj"]},
    )
    merged = merge(pool, name, scale=1.0)["text_projection"]
    mean = pool.vectors["text_projection"].mean(dim=0).view(8, 4)
    torch.testing.assert_close(merged, pool.base["text_projection"] + mean)


@pytest.mark.parametrize("name", NAMED)
def test_the_order_of_the_tasks_does_not_matter(name: str) -> None:
    pool = pool64()
    close(merge(rows(pool, [2, 0, 1]), name), merge(pool, name), 1e-9)


@pytest.mark.parametrize("name", NAMED)
def test_apart_is_each_of_q_k_and_v_alone(name: str) -> None:
    pool = pool64()
    whole = merge(pool, name, fused="apart")[IN_PROJ]
    stacks = pool.vectors[IN_PROJ].view(3, 24, 8)
    for part in range(3):
        cut = slice(8 * part, 8 * part + 8)
        single = replace(
            pool, base={"w": pool.base[IN_PROJ][cut]}, vectors={"w": stacks[:, cut].reshape(3, -1)}
        )
        torch.testing.assert_close(whole[cut], merge(single, name)["w"])
    assert not torch.allclose(whole, merge(pool, name, fused="together")[IN_PROJ])


@pytest.mark.parametrize("name", NAMED)
def test_a_task_that_changed_nothing_and_a_matrix_that_nobody_changed(name: str) -> None:
    pool = changed(pool64(), 1, torch.zeros_like)
    pool.vectors[IN_PROJ].view(3, 24, 8)[:, 8:16] = 0.0
    merged = merge(pool, name, fused="apart")
    assert all(value.isfinite().all() for value in merged.values())
    assert torch.equal(merged[IN_PROJ][8:16], pool.base[IN_PROJ][8:16])


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_vectors_and_bases_are_worked_on_in_float32(name: str, dtype: Any) -> None:
    pool = pool64(spread=0.05).map(lambda tensor: tensor.to(torch.float32))
    wide = merge(pool, name)
    rounded = {key: stack.to(dtype) for key, stack in pool.vectors.items()}
    stored = merge(replace(pool, vectors=rounded), name)
    narrow = {key: value.to(dtype) for key, value in pool.base.items()}
    all_narrow = merge(replace(pool, base=narrow, vectors=rounded), name)
    for key, value in wide.items():
        assert stored[key].dtype == torch.float32
        assert all_narrow[key].dtype == dtype
        torch.testing.assert_close(stored[key], value, rtol=0.0, atol=0.02)
        torch.testing.assert_close(all_narrow[key].float(), value, rtol=0.0, atol=0.05)


@pytest.mark.parametrize("name", NAMED)
def test_coefficients_that_are_learned_start_at_the_merge_and_within_the_clamp(name: str) -> None:
    pool, rule = pool64(), rule_named(name, **FEW.get(name, {}))
    ruled = rule(pool)
    assert ruled.names == (("merged",) if rule.gives == "delta" else pool.names)
    learned = AdaMerging(ruled, start=None, clamp=True).double()
    close(learned.merged_state_dict(), ruled.static(), 1e-9)
