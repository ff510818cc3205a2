"""What a finished model keeps of its experts: what the papers keep, and not one bit of its logits is lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TASKS, TINY_VIT, make_vit_pool
from safetensors.torch import load_file
from torch import Tensor

from adamerge.merging.compact import as_vectors, forms_of
from adamerge.merging.quantised import INT3, INT4, INT8, Quantised
from adamerge.methods import Twin, WEMoE
from adamerge.methods.static import Static, experts
from adamerge.models.backbone import Backbone
from adamerge.models.finished import FILE, open_finished, save_finished
from adamerge.rules.emr import Emr
from adamerge.rules.linear import TaskArithmetic

T = len(TASKS)


def vectors_in(folder: Path) -> dict[str, Tensor]:
    return {k: v for k, v in load_file(folder / FILE).items() if k.startswith("vectors/")}


def rescaled(pool: Any) -> dict[str, Tensor]:
    """rescale_t * mask_t * unified of every tensor, as T dense vectors (T, numel)."""
    masked = {}
    for key, stack in pool.vectors.items():
        wide = stack.float()
        sign = torch.where(wide.sum(dim=0) > 0, 1.0, -1.0)
        agrees = wide * sign > 0
        masked[key] = torch.where(agrees, sign * torch.where(agrees, wide.abs(), 0.0).amax(dim=0), 0.0)
    wanted, found = (
        torch.stack([stack.float().abs().mean(dim=1) for stack in stacks.values()]).sum(dim=0)
        for stacks in (pool.vectors, masked)
    )
    return {key: (wanted / found).view(-1, 1) * stack for key, stack in masked.items()}


@pytest.mark.parametrize("narrow", [False, True])
def test_emr_keeps_one_vector_with_bits_and_rescalers(tmp_path: Path, narrow: bool) -> None:
    pool = make_vit_pool()
    if narrow:
        pool = replace(pool, vectors={key: stack.bfloat16() for key, stack in pool.vectors.items()})
    expected = rescaled(pool)
    ruled = Emr()(pool)
    kept = Static(ruled).kept()
    assert kept is not None
    save_finished(tmp_path, kept)
    opened = open_finished(tmp_path, Backbone.of(TINY_VIT))
    for key, stack in expected.items():
        dtype = torch.bfloat16 if narrow else torch.float32
        assert torch.equal(ruled.vectors[key], stack.to(dtype)), key
        assert torch.equal(opened.vectors[key], stack.to(dtype)), key
    for task in TASKS:
        for key, value in ruled.static(task).items():
            assert torch.equal(opened.static(task)[key], value), (task, key)
    sizes = [stack.shape[1] for stack in pool.vectors.values()]
    width = 2 if narrow else 4
    bits = sum(-(-T * n // 8) for n in sizes)
    assert sum(v.nbytes for v in vectors_in(tmp_path).values()) == width * sum(sizes) + bits + 4 * T * len(
        sizes
    )


@pytest.mark.parametrize("dtype", [INT8, INT4, INT3])
def test_experts_and_routed_mlps_stay_in_few_bits(tmp_path: Path, dtype: torch.dtype) -> None:
    pool = make_vit_pool()
    pool = replace(pool, vectors=as_vectors({k: Quantised.of(v, dtype) for k, v in pool.vectors.items()}))
    for name, method in (("experts", experts(pool)), ("routed", WEMoE(TaskArithmetic()(pool)))):
        kept = method.kept()
        assert kept is not None
        folder = tmp_path / name
        folder.mkdir()
        save_finished(folder, kept)
        opened = open_finished(folder, Backbone.of(TINY_VIT))
        for key in kept.keys:
            assert torch.equal(opened.vectors[key], pool.vectors[key]), key
        for key, form in forms_of(kept.vectors).items():
            assert isinstance(form, Quantised)
            assert form.nbytes == sum(v.nbytes for k, v in vectors_in(folder).items() if f"/{key}/" in k)


@pytest.mark.parametrize("fused", ["together", "apart"])
def test_twin_keeps_factors_of_low_rank(tmp_path: Path, fused: str) -> None:
    pool = make_vit_pool()
    options = {"rank_share": 0.25, "hidden": 6, "fused": fused}
    method = Twin(TaskArithmetic()(pool), **options).eval()
    save_finished(tmp_path, method.kept())
    kept = vectors_in(tmp_path)
    again = Twin.restore(
        open_finished(tmp_path, Backbone.of(TINY_VIT)), method.state_dict(), **options
    ).eval()
    images = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    for task in TASKS:
        assert torch.equal(method.logits(images, task), again.logits(images, task))
    for key, base in pool.base.items():
        if base.ndim != 2:
            assert kept[f"vectors/{key}"].shape == (T, base.numel())
            continue
        rows, columns = base.shape
        parts = 3 if fused == "apart" and "in_proj" in key else 1
        rank = max(1, int(0.25 * min(rows // parts, columns)))
        assert kept[f"vectors/{key}/left"].shape == (parts, T, rows // parts, rank)
        assert kept[f"vectors/{key}/right"].shape == (parts, T, rank, columns)


def test_twin_keeps_whole_what_factors_would_not_shorten(tmp_path: Path) -> None:
    method = Twin(TaskArithmetic()(make_vit_pool()), rank_share=1.0, hidden=6)
    save_finished(tmp_path, method.kept())
    assert not any(key.endswith(("/left", "/right")) for key in vectors_in(tmp_path))
