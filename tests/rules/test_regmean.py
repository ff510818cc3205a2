"""RegMean against the normal equations by hand, in float64, on Gram matrices of its own."""

from __future__ import annotations

import pytest
import torch
from restating import State, expert, images64, pool64
from statistics_by_hand import naive
from torch import Tensor

import adamerge
from adamerge.merging import Pool
from adamerge.rules.regmean import RegMean
from adamerge.statistics.collected import Collected, Tables, statistics_in_memory


def by_hand(pool: Pool, grams: dict[str, dict[str, Tensor]], shrink: float) -> State:
    """W = (sum_t W_t G_t)(sum_t G_t)^-1 in the weights themselves, and the mean of everything else."""
    experts = {task: expert(pool, task) for task in pool.names}
    merged: State = {}
    for key in pool.base:
        if key not in grams[pool.names[0]]:
            merged[key] = torch.stack([experts[task][key] for task in pool.names]).sum(dim=0) / len(
                pool.names
            )
            continue
        total, pulled = torch.zeros(()), torch.zeros(())
        for task in pool.names:
            gram = grams[task][key].clone()
            for i in range(len(gram)):
                for j in range(len(gram)):
                    gram[i, j] *= 1.0 if i == j else shrink
            total, pulled = total + gram, pulled + experts[task][key] @ gram
        merged[key] = pulled @ torch.linalg.inv(total)
    return merged


def collected(pool: Pool, images: State) -> dict[str, dict[str, Tensor]]:
    return {task: naive(expert(pool, task), images[task]) for task in pool.names}


def known(grams: Tables) -> Collected:
    return Collected({"gram": grams}.__getitem__)


@pytest.mark.parametrize("shrink", [0.95, 0.3])
def test_it_is_least_squares_on_what_enters_each_layer(shrink: float) -> None:
    pool, images = pool64(), images64(6)
    merged = adamerge.merge(pool, rule="regmean", images=images, shrink=shrink)
    grams = collected(pool, images)
    for key, value in by_hand(pool, grams, shrink).items():
        torch.testing.assert_close(merged[key], value, rtol=1e-8, atol=1e-9)


def test_the_origin_makes_no_difference() -> None:
    pool, images = pool64(), images64(6)
    about = [adamerge.merge(pool, rule="regmean", images=images, origin=o) for o in ("base", "average")]
    for key, value in about[0].items():
        torch.testing.assert_close(about[1][key], value, rtol=1e-8, atol=1e-9)


def test_equal_grams_give_the_average_and_one_expert_itself() -> None:
    pool = pool64()
    own = collected(pool, images64(6))
    same = known(dict.fromkeys(pool.names, own[pool.names[0]]))
    average = adamerge.merge(pool, rule="weight_average")
    for key, value in RegMean()(pool, statistics=same).static().items():
        torch.testing.assert_close(value, average[key], rtol=1e-6, atol=1e-7)
    alone = pool64(tasks=("digits",))
    merged = adamerge.merge(alone, rule="regmean", images=images64(6))
    for key, value in expert(alone, "digits").items():
        torch.testing.assert_close(merged[key], value, rtol=1e-8, atol=1e-9)


def test_an_input_that_is_always_zero_takes_a_ridge() -> None:
    """Without one the system has no solution; that input's column then stays the base's."""
    pool = pool64()
    key = "visual.transformer.resblocks.0.mlp.c_fc.weight"
    spoiled = collected(pool, images64(6))
    for grams in spoiled.values():
        grams[key] = grams[key].clone()
        grams[key][3] = 0.0
        grams[key][:, 3] = 0.0
    merged = RegMean()(pool, statistics=known(spoiled)).static()[key]
    assert merged.isfinite().all()
    torch.testing.assert_close(merged[:, 3], pool.base[key][:, 3])


def test_it_gives_one_delta_and_refuses_another_range() -> None:
    pool = pool64()
    ruled = RegMean()(pool, statistics=statistics_in_memory(pool, images64(4)))
    assert ruled.names == ("merged",)
    assert {len(stack) for stack in ruled.vectors.values()} == {1}
    with pytest.raises(ValueError, match="shrink"):
        RegMean(shrink=1.5)
