"""TSV-C restated in numpy, what it keeps, and its identities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_VIT
from restating import expert, pool64, tau
from spectral_by_hand import close

import adamerge
from adamerge.errors import PoolError
from adamerge.merging.compact import LowRank, forms_of
from adamerge.models.backbone import Backbone
from adamerge.models.finished import open_finished, save_finished
from adamerge.rules.tsv_c import TsvC


@pytest.mark.parametrize("fused", ["together", "apart"])
def test_each_task_has_its_leading_triplets(fused: str) -> None:
    pool = pool64()
    for task in pool.names:
        expected = dict(pool.base)
        for key, vector in tau(pool, task).items():
            if vector.ndim == 2:
                cuts = np.split(vector, 3) if "in_proj" in key and fused == "apart" else [vector.numpy()]
                kept = []
                for cut in cuts:
                    u, s, v = np.linalg.svd(np.asarray(cut), full_matrices=False)
                    q = max(1, len(s) // 3)
                    kept.append(u[:, :q] * s[:q] @ v[:q])
                vector = torch.from_numpy(np.concatenate(kept))
            expected[key] = pool.base[key] + vector
        close(adamerge.merge(pool, "tsv_c", task, fused=fused), expected, 1e-9)
    with pytest.raises(PoolError, match="one encoder per task"):
        adamerge.merge(pool, "tsv_c")


def test_it_keeps_factors_where_they_are_smaller_and_a_file_gives_them_back(tmp_path: Path) -> None:
    pool = pool64()
    ruled = TsvC()(pool)
    forms = forms_of(ruled.vectors)
    key = "visual.transformer.resblocks.0.mlp.c_fc.weight"
    kept = forms[key]
    assert isinstance(kept, LowRank)
    assert kept.left.shape == (1, 3, 32, 2)
    assert kept.right.shape == (1, 3, 2, 8)
    assert isinstance(forms["visual.ln_post.bias"], torch.Tensor)
    save_finished(tmp_path, ruled)
    again = open_finished(tmp_path, Backbone.of(TINY_VIT))
    for name in pool.names:
        for key, value in ruled.static(name).items():
            assert torch.equal(again.static(name)[key], value)


def test_kept_and_opened_out_are_the_same() -> None:
    pool = pool64()
    rule = TsvC(fused="apart")
    dense, compact = rule.prepare(None), rule.compact(None)  # type: ignore[arg-type]
    for key in ("visual.transformer.resblocks.0.attn.in_proj_weight", "visual.proj", "visual.ln_post.bias"):
        stack = pool.vectors[key].view(3, *pool.base[key].shape)
        form = compact(key, pool.base[key], stack)
        opened = form.dense().view(stack.shape) if isinstance(form, LowRank) else form
        assert torch.equal(dense(key, pool.base[key], stack), opened)  # type: ignore[arg-type]


def test_one_expert_is_itself() -> None:
    alone = pool64(tasks=("digits",))
    close(adamerge.merge(alone, "tsv_c", "digits"), expert(alone, "digits"), 1e-9)
