"""Fisher merging against the weighted mean written out, in float64, on Fisher information of its own."""

from __future__ import annotations

import pytest
import torch
from fisher_by_hand import fisher_by_hand
from restating import State, expert, images64, pool64
from small_pools import reordered
from torch import Tensor

import adamerge
from adamerge.errors import PoolError
from adamerge.merging import Pool
from adamerge.rules.fisher import Fisher
from adamerge.statistics.collected import Collected, Tables, statistics_in_memory

KEY = "visual.transformer.resblocks.1.mlp.c_fc.weight"


def collected(pool: Pool, images: State) -> dict[str, dict[str, Tensor]]:
    return {task: fisher_by_hand(pool, task, images[task]) for task in pool.names}


def known(information: Tables) -> Collected:
    return Collected({"fisher": information}.__getitem__)


def by_hand(pool: Pool, information: Tables, normalize: bool, floor: float) -> State:
    """sum_t c_t (F_t + floor) W_t / sum_t c_t (F_t + floor), of the weights themselves."""
    merged: State = {}
    lengths = {
        task: torch.cat([information[task][key].flatten() for key in pool.vectors]).square().sum().sqrt()
        for task in pool.names
    }
    for key, value in pool.base.items():
        above, below = torch.zeros_like(value), torch.zeros_like(value)
        for task in pool.names:
            weight = information[task][key] + floor
            if normalize:
                weight = weight / (lengths[task] + floor)
            above, below = above + weight * expert(pool, task)[key], below + weight
        merged[key] = above / below
    return merged


def close(found: State, expected: State) -> None:
    assert set(found) == set(expected)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("floor", [1e-6, 0.1])
def test_it_is_the_mean_weighed_by_fisher_information(normalize: bool, floor: float) -> None:
    pool, images = pool64(), images64(4)
    merged = adamerge.merge(pool, rule="fisher", images=images, normalize=normalize, floor=floor)
    close(merged, by_hand(pool, collected(pool, images), normalize, floor))


def test_two_experts_by_hand() -> None:
    """Information 3 and 1, without normalising: three quarters of the first, one of the second."""
    pool = pool64(tasks=("digits", "signs"))
    of = {"digits": 3.0, "signs": 1.0}
    information = {
        task: {key: torch.full_like(value, of[task]) for key, value in pool.base.items()}
        for task in pool.names
    }
    merged = Fisher(normalize=False, floor=1e-12)(pool, statistics=known(information)).static()
    expected = 0.75 * expert(pool, "digits")[KEY] + 0.25 * expert(pool, "signs")[KEY]
    torch.testing.assert_close(merged[KEY], expected, rtol=1e-6, atol=1e-7)
    # Normalised, information that is the same everywhere makes no expert count more.
    average = adamerge.merge(pool, "weight_average")
    close(Fisher(floor=1e-12)(pool, statistics=known(information)).static(), average)


def test_equal_information_and_none_give_the_average_and_one_expert_itself() -> None:
    pool = pool64()
    own = collected(pool, images64(3))["digits"]
    average = adamerge.merge(pool, rule="weight_average")
    for same in (own, {key: torch.zeros_like(value) for key, value in own.items()}):
        merged = Fisher()(pool, statistics=known(dict.fromkeys(pool.names, same))).static()
        for key, value in average.items():
            torch.testing.assert_close(merged[key], value, rtol=1e-6, atol=1e-7)
    alone = pool64(tasks=("digits",))
    close(adamerge.merge(alone, rule="fisher", images=images64(3)), expert(alone, "digits"))


def test_the_order_of_tasks_and_the_origin_make_no_difference() -> None:
    tasks = ("signs", "digits", "scenes")
    pool, images = pool64(tasks=tasks), images64(3)
    merged = adamerge.merge(pool, rule="fisher", images=images)
    turned = reordered(pool, range(len(pool.names))[::-1])
    close(adamerge.merge(turned, rule="fisher", images=images), merged)
    close(adamerge.merge(pool, rule="fisher", images=images, origin="average"), merged)


def test_equal_experts_give_that_expert_and_experts_that_are_the_base_the_base() -> None:
    pool, images = pool64(), images64(3)
    same = Pool(
        pool.encoder,
        pool.base,
        {key: stack[:1].expand_as(stack).clone() for key, stack in pool.vectors.items()},
        pool.names,
        pool.heads,
    )
    close(adamerge.merge(same, rule="fisher", images=images), expert(same, pool.names[0]))
    still = Pool(
        pool.encoder,
        pool.base,
        {key: torch.zeros_like(stack) for key, stack in pool.vectors.items()},
        pool.names,
        pool.heads,
    )
    close(adamerge.merge(still, rule="fisher", images=images), still.base)


def test_it_gives_one_delta_and_refuses_what_it_cannot_use() -> None:
    pool, images = pool64(), images64(2)
    seen = statistics_in_memory(pool, images)
    ruled = Fisher()(pool, statistics=seen)
    assert ruled.names == ("merged",)
    assert {len(stack) for stack in ruled.vectors.values()} == {1}
    with pytest.raises(ValueError, match="floor"):
        Fisher(floor=0.0)
    with pytest.raises(PoolError, match="learns from unlabeled images"):
        adamerge.merge(pool, rule="fisher")
    spoiled = collected(pool, images)
    spoiled["digits"] = {**spoiled["digits"], KEY: spoiled["digits"][KEY].t()}
    with pytest.raises(PoolError, match=f"information of digits does not fit {KEY}"):
        Fisher()(pool, statistics=known(spoiled))
