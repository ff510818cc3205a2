"""A rule that ranks entries does so in float32, whatever the task vectors are kept as."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from commands.conftest import QUICK
from composing import settings

from adamerge.merging.compact import kept_as
from adamerge.runs.run import open_run


def test_vectors_in_few_bits_are_ranked_before_they_are_quantised(home: Path) -> None:
    kept: dict[str, Any] = {}
    for dtype in ("float32", "int4"):
        words = ["rule=ties", "suite.tasks=[digits,signs]", *QUICK[1:3], f"checkpoints.dtype={dtype}"]
        run = open_run(settings("merge", *words))
        pool, _ = run.open()
        vectors = run.build(pool).pool.vectors
        assert str(kept_as(pool.vectors)) == str(kept_as(vectors)) == f"torch.{dtype}"
        kept[dtype] = vectors
    for key, form in kept["int4"].forms.items():
        wide = kept["float32"][key]
        assert bool((form.dense()[wide == 0] == 0).all())
        assert bool(((form.dense() - wide).abs() <= 0.5001 * form.steps.unsqueeze(1)).all())


@pytest.mark.parametrize("rule", ["ties", "doge_ta", "magmax"])
def test_bfloat16_vectors_keep_the_entries_that_float32_keeps(home: Path, rule: str) -> None:
    words = [f"rule={rule}", "suite.tasks=[digits,signs]", *QUICK[1:3]]
    if rule == "doge_ta":
        words.append("rule.steps=1")
    kept = {}
    for dtype in ("float32", "bfloat16"):
        run = open_run(settings("merge", *words, f"checkpoints.dtype={dtype}"))
        pool, _ = run.open()
        vectors = run.build(pool).pool.vectors
        assert {str(stack.dtype) for stack in vectors.values()} == {f"torch.{dtype}"}
        kept[dtype] = {key: stack != 0 for key, stack in vectors.items()}
        narrow = {key: stack != 0 for key, stack in _ruled_as_kept(run, pool).items()}
    assert all(torch.equal(kept["float32"][key], mask) for key, mask in kept["bfloat16"].items())
    assert any(not torch.equal(kept["float32"][key], mask) for key, mask in narrow.items())
    if rule != "magmax":  # of which one task keeps each entry
        # Ranking what bfloat16 has left keeps more: whole steps of it tie with the threshold.
        assert _count(narrow) > _count(kept["bfloat16"])


def _ruled_as_kept(run: Any, pool: Any) -> Any:
    from adamerge.settings import instantiate

    return instantiate(run.settings.rule.component)(pool).vectors


def _count(masks: dict[str, torch.Tensor]) -> int:
    return sum(int(mask.sum()) for mask in masks.values())
