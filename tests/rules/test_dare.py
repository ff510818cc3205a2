"""DARE's masks: what they depend on, how many they keep, and that what follows gets what is left."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from restating import pool64
from safetensors.torch import load_file
from small_pools import close, pool_of, reordered

import adamerge
from adamerge.__main__ import main
from adamerge.merging import Pool
from adamerge.report.collect import collect, flat_config
from adamerge.rules.cart import Cart
from adamerge.rules.dare import Dare
from adamerge.rules.linear import Individual, TaskArithmetic, WeightAverage
from adamerge.rules.regmean import RegMean
from adamerge.rules.rule import Rule
from adamerge.rules.ties import Ties
from adamerge.tracking.preset import read_preset

MANY = 20000


def left(pool: Pool, drop: float, seed: int = 0) -> Pool:
    """The pool with the task vectors that DARE leaves."""
    return Dare(drop, seed, Rule())(pool)


def test_entries_are_dropped_or_scaled_up_and_about_as_many_as_asked_for() -> None:
    torch.manual_seed(0)
    pool = pool_of(w=torch.randn(2, MANY))
    found = left(pool, 0.8).vectors["w"]
    kept = found != 0
    torch.testing.assert_close(found[kept], pool.vectors["w"][kept] / 0.2)
    for row in kept:  # a standard deviation is 0.0028
        assert abs(float(row.double().mean()) - 0.2) < 0.015
    # Two tasks are dropped apart from each other.
    assert abs(float((kept[0] & kept[1]).double().mean()) - 0.04) < 0.01


def test_in_expectation_a_task_vector_is_itself() -> None:
    tau = torch.tensor([[1.0, -2.0, 0.5]])
    mean = torch.stack([left(pool_of(w=tau), 0.5, seed).vectors["w"][0] for seed in range(2000)]).mean(dim=0)
    torch.testing.assert_close(mean, tau[0].double(), rtol=0.08, atol=0.0)


def test_a_mask_depends_on_seed_expert_and_tensor_and_on_no_order() -> None:
    pool = pool64()
    first = left(pool, 0.5)
    close(dict(left(pool, 0.5).vectors), dict(first.vectors), rtol=0.0, atol=0.0)
    other = reordered(pool, [2, 0, 1])
    close(dict(left(other, 0.5).vectors), dict(reordered(first, [2, 0, 1]).vectors), rtol=0.0, atol=0.0)
    upside_down = Pool(
        pool.encoder, pool.base, dict(reversed(list(pool.vectors.items()))), pool.names, pool.heads
    )
    close(dict(left(upside_down, 0.5).vectors), dict(first.vectors), rtol=0.0, atol=0.0)
    alike = pool_of(v=torch.ones(2, 64), w=torch.ones(2, 64))
    masks = left(alike, 0.5).vectors
    rows = [*masks["v"], *masks["w"], *left(alike, 0.5, seed=1).vectors["v"]]
    assert len({tuple(row.tolist()) for row in rows}) == len(rows)


def test_the_masks_are_those_of_every_precision() -> None:
    pool = pool64()
    narrow = pool.map(lambda tensor: tensor.float())
    for key, stack in left(pool, 0.7).vectors.items():
        assert torch.equal(stack != 0, left(narrow, 0.7).vectors[key] != 0)


@pytest.mark.parametrize("then", [WeightAverage(), TaskArithmetic(0.4), Ties(0.3), Individual()])
def test_what_is_left_is_merged_as_if_it_were_the_task_vectors(then: Rule) -> None:
    pool = pool64()
    found, expected = Dare(0.6, 3, then)(pool), then(left(pool, 0.6, 3))
    assert found.by_task == expected.by_task
    for task in pool.names if found.by_task else (None,):
        close(found.static(task), expected.static(task), rtol=0.0, atol=0.0)


@pytest.mark.parametrize(
    ("name", "plain"), [("dare", "weight_average"), ("dare_ta", "task_arithmetic"), ("dare_ties", "ties")]
)
def test_nothing_dropped_is_the_rule_alone(name: str, plain: str) -> None:
    pool = pool64()
    close(adamerge.merge(pool, name, drop=0.0), adamerge.merge(pool, plain))


def test_it_merges_about_the_origin_of_the_rule_behind_it_and_starts_where_that_starts() -> None:
    pool = pool64()
    close(adamerge.merge(pool, Dare(0.0, then=Cart())), adamerge.merge(pool, Cart()))
    assert Dare(then=Cart()).own_start
    assert not Dare(then=TaskArithmetic()).own_start


def test_one_expert_without_drop_is_itself() -> None:
    alone = pool64(tasks=("digits",))
    close(adamerge.merge(alone, "dare", drop=0.0), alone.expert("digits"))


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="drop is the share"):
        Dare(1.0)
    with pytest.raises(ValueError, match="RegMean learns from images"):
        Dare(then=RegMean())


class TestRuns:
    def test_masks_are_those_of_the_run_s_seed(self, home: Path) -> None:
        """Two seeds are two runs of one row, and neither differs from the preset."""
        few = ("suite.tasks=[digits,signs]", "++suite.limit=8")
        for seed in (0, 1):
            main(["merge", "rule=dare_ta", f"seed={seed}", *few])
        folders = [path.parent for path in sorted(home.glob("outputs/mini/dare_ta/*/results.json"))]
        merged = [load_file(folder / "merged.safetensors")["visual.proj"] for folder in folders]
        assert not torch.equal(*merged)
        (group,) = collect(folders).comparisons[0].groups
        assert group.seeds == (0, 1)
        for folder in folders:
            known = read_preset(folder)
            assert known is not None
            assert "rule.mask_seed" not in known.deviations

    def test_a_seed_of_its_own_is_told(self, tmp_path: Path) -> None:
        for own in (3, 5):
            (tmp_path / "config.yaml").write_text(f"seed: 3\nrule: {{name: dare, mask_seed: {own}}}\n")
            assert flat_config(tmp_path / "config.yaml").get("rule.mask_seed") == (None if own == 3 else 5)
