"""TALL-masks and Consensus entry by entry, their identities, and what of TALL-masks is kept in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_VIT, make_vit_pool
from restating import pool64
from small_pools import added, close, pool_of, reordered, taus, the_order_of_tasks_does_not_matter
from torch import Tensor

import adamerge
from adamerge.checkpoints import open_tensors
from adamerge.merging.compact import Compact, Masked
from adamerge.methods.static import Static
from adamerge.models.backbone import Backbone
from adamerge.models.finished import open_finished, save_finished
from adamerge.rules.cart import Cart
from adamerge.rules.emr import Emr
from adamerge.rules.tall import Consensus, Tall
from adamerge.rules.ties import Ties


def masks_by_hand(
    vectors: list[Tensor], threshold: float, merged: list[float] | None = None
) -> list[list[bool]]:
    rows = [vector.flatten().tolist() for vector in vectors]
    total = merged or [sum(column) for column in zip(*rows, strict=True)]
    return [[abs(x) > threshold * abs(m - x) for x, m in zip(row, total, strict=True)] for row in rows]


def summed(vectors: list[Tensor]) -> Tensor:
    return sum(vectors[1:], vectors[0])


class TestTall:
    @pytest.mark.parametrize("threshold", [0.2, 0.6])
    def test_a_task_has_the_entries_of_the_sum_that_lie_in_its_mask(self, threshold: float) -> None:
        pool = pool64()
        for t, task in enumerate(pool.names):
            change = {}
            for key, vectors in taus(pool).items():
                mask = torch.tensor(masks_by_hand(vectors, threshold)[t]).view(vectors[0].shape)
                change[key] = torch.where(mask, summed(vectors), 0.0)
            close(adamerge.merge(pool, "tall", task, threshold=threshold), added(pool, change))

    def test_by_hand_with_equality_outside(self) -> None:
        # Sum (3, 1, -1); the others' part for a: (1, 2, 0), for b: (2, -1, -1); threshold 0.5.
        pool = pool_of(w=[[2.0, -1.0, -1.0], [1.0, 2.0, 0.0]])
        found = [adamerge.merge(pool, "tall", task, threshold=0.5)["w"].tolist() for task in "ab"]
        # a: 2 > 0.5, 1 > 1 is not, 1 > 0;  b: 1 > 1 is not, 2 > 0.5, 0 > 0.5 is not.
        assert found == [[3.0, 0.0, -1.0], [0.0, 1.0, 0.0]]

    def test_one_expert_is_itself(self) -> None:
        alone = pool64(tasks=("digits",))
        close(adamerge.merge(alone, "tall", "digits"), alone.expert("digits"))

    def test_the_order_of_the_tasks_does_not_matter(self) -> None:
        pool = pool64()
        for task in pool.names:
            close(
                adamerge.merge(reordered(pool, [2, 0, 1]), "tall", task), adamerge.merge(pool, "tall", task)
            )

    def test_over_another_rule_its_vectors_are_summed_with_scale_1(self) -> None:
        pool = pool64()
        made = taus(Ties(0.5, scale=0.2)(pool))
        for t, task in enumerate(pool.names):
            change = {}
            for key, vectors in taus(pool).items():
                total = summed(made[key])
                mask = torch.tensor(masks_by_hand(vectors, 0.4, total.flatten().tolist())[t])
                change[key] = torch.where(mask.view(total.shape), total, 0.0)
            close(adamerge.merge(pool, Tall(over=Ties(0.5, scale=0.2)), task), added(pool, change))

    def test_one_vector_and_a_bit_per_task_are_kept_and_restore_each_task(self, tmp_path: Path) -> None:
        pool = Tall()(make_vit_pool())
        assert isinstance(pool.vectors, Compact)
        assert all(isinstance(form, Masked) for form in pool.vectors.forms.values())
        kept = Static(pool).kept()
        assert kept is not None
        save_finished(tmp_path, kept)
        state = open_tensors(tmp_path / "inference.safetensors")
        vectors = {key: value for key, value in state.items() if key.startswith("vectors/")}
        entries = [stack.shape[1] for stack in make_vit_pool().vectors.values()]
        bits = sum(value.nbytes for key, value in vectors.items() if key.endswith("/bits"))
        assert bits == sum(-(-3 * n // 8) for n in entries)
        assert sum(value.nbytes for key, value in vectors.items() if "unified" in key) == 4 * sum(entries)
        again = open_finished(tmp_path, Backbone.of(TINY_VIT))
        for task in pool.names:
            close(again.static(task), pool.static(task), rtol=0.0, atol=0.0)


class TestConsensus:
    @pytest.mark.parametrize("tasks", [0, 1, 2, 3])
    def test_it_keeps_what_enough_tasks_use(self, tasks: int) -> None:
        pool = pool64()
        change = {}
        for key, vectors in taus(pool).items():
            votes = [sum(column) for column in zip(*masks_by_hand(vectors, 0.6), strict=True)]
            keep = torch.tensor([vote >= tasks for vote in votes]).view(vectors[0].shape)
            change[key] = 0.7 * torch.where(keep, summed(vectors), 0.0)
        found = adamerge.merge(pool, "consensus", threshold=0.6, tasks=tasks, scale=0.7)
        close(found, added(pool, change))

    def test_none_dropped_is_task_arithmetic(self) -> None:
        pool = pool64()
        close(adamerge.merge(pool, "consensus", tasks=0), adamerge.merge(pool, "task_arithmetic"))

    def test_one_expert_is_itself_and_the_order_does_not_matter(self) -> None:
        alone = pool64(tasks=("digits",))
        close(adamerge.merge(alone, "consensus", scale=1.0), alone.expert("digits"))
        the_order_of_tasks_does_not_matter(pool64(), "consensus")

    def test_the_masks_do_not_follow_the_scale(self) -> None:
        pool = pool64()
        one, half = (adamerge.merge(pool, "consensus", scale=scale) for scale in (1.0, 0.5))
        close(
            {k: 2 * (half[k] - v) for k, v in pool.base.items()},
            {k: one[k] - v for k, v in pool.base.items()},
        )

    def test_it_gives_a_vector_per_task(self) -> None:
        ruled = Consensus()(pool64())
        assert ruled.names == pool64().names
        assert {len(stack) for stack in ruled.vectors.values()} == {3}


def test_what_makes_no_sense_is_refused() -> None:
    makers: tuple[Any, ...] = (Tall, Consensus)
    for make in makers:
        with pytest.raises(ValueError, match="threshold"):
            make(threshold=-0.1)
        with pytest.raises(ValueError, match="not Emr"):
            make(over=Emr())
    with pytest.raises(ValueError, match="tasks"):
        Consensus(tasks=-1)


@pytest.mark.parametrize("kind", [Tall, Consensus])
def test_vectors_are_read_as_the_rule_below_reads_them(kind: Any) -> None:
    """In float32 where that ranks entries, and about its own origin."""
    assert kind(over=Ties()).ranks
    assert not kind().ranks
    pool, task = pool64(), None if kind is Consensus else "signs"
    own = adamerge.merge(pool, kind(over=Cart()), task)
    close(own, adamerge.merge(pool, kind(over=Cart()), task, origin="average"), rtol=0.0, atol=0.0)
