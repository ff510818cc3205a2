"""Streams as they come: what each order promises about the classes in a batch, and that no label leaves it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader

from adamerge.errors import ConfigError, DataError
from adamerge.tasks.images import ImageSet
from adamerge.tasks.orders import Order, Plan, plans
from adamerge.tasks.stream import Stream

FEW = Order("few_classes", (2, 3))
SOME = Order("dirichlet", gamma=0.01)
SORTED = Order("class_by_class")
MIXED = Order(mixed_tasks=True)
LABELED = (FEW, SOME, SORTED)
EVERY = (*LABELED, MIXED, Order("class_by_class", mixed_tasks=True))


def labels(classes: int = 10, each: int = 12) -> Tensor:
    return torch.arange(classes).repeat_interleave(each)[torch.randperm(classes * each)]


KNOWN = {"cars": labels(), "signs": labels(6, 9)}


def planned(
    order: Order, steps: int = 20, per_task: int = 8, seed: int = 0, feed: str = "persistent", **known: Tensor
) -> dict[str, Plan]:
    given = known or KNOWN
    sizes = {task: len(own) for task, own in given.items()}
    return plans(order, sizes, given, per_task=per_task, steps=steps, seed=seed, feed=feed)


def shown(plan: Plan, steps: int = 20) -> list[Tensor]:
    return [plan[step] for step in range(steps)]


@pytest.mark.parametrize("feed", ["persistent", "resample", "fixed", "cycle_cached"])
@pytest.mark.parametrize("order", EVERY, ids=str)
def test_a_plan_is_a_pure_function_of_its_arguments(order: Order, feed: str) -> None:
    if feed == "fixed" and order.mixed_tasks:
        return
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, two, other = (planned(order, feed=feed, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    for task in KNOWN:
        assert torch.equal(one[task].walk, two[task].walk)
        assert not torch.equal(one[task].walk, other[task].walk)


@pytest.mark.parametrize("order", LABELED, ids=str)
def test_other_tasks_and_more_steps_do_not_change_a_task(order: Order) -> None:
    alone, among, longer = planned(order, cars=KNOWN["cars"]), planned(order), planned(order, steps=40)
    for step in range(20):
        assert torch.equal(alone["cars"][step], among["cars"][step])
        assert torch.equal(longer["cars"][step], among["cars"][step])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 6), st.integers(0, 99))
def test_a_batch_of_few_classes_has_as_many_as_were_drawn(
    count: int, least: int, more: int, seed: int
) -> None:
    order = Order("few_classes", (least, least + more))
    plan = planned(order, steps=12, per_task=count, seed=seed, feed="resample")["cars"]
    for rows in shown(plan, 12):
        assert len(set(rows.tolist())) == len(rows) == count
        classes = len(KNOWN["cars"][rows].unique())
        assert min(least, count) <= classes <= min(least + more, count, 10)


def test_the_number_of_classes_is_drawn_uniformly_and_so_are_the_classes() -> None:
    plan = planned(Order("few_classes", (1, 4)), steps=2000, per_task=8)["cars"]
    batches = [KNOWN["cars"][rows] for rows in shown(plan, 2000)]
    counts = np.bincount([len(b.unique()) for b in batches], minlength=5)
    assert counts[0] == 0
    assert np.abs(counts[1:] - 500).max() < 4.5 * 19.4  # binomial (2000, 1 / 4)
    present = torch.bincount(torch.cat([b.unique() for b in batches]), minlength=10).float()
    assert (present - 500).abs().max() < 4.5 * 22  # 2.5 of 10 classes in a batch


def test_classes_that_are_too_small_are_joined_by_others() -> None:
    known = labels(10, 3)
    plan = planned(Order("few_classes", (1, 1)), per_task=8, cars=known)["cars"]
    for rows in shown(plan):
        assert len(set(rows.tolist())) == 8
        assert len(known[rows].unique()) == 3


@pytest.mark.parametrize("order", [SOME, SORTED, MIXED], ids=str)
def test_a_walk_shows_every_image_once_in_an_epoch(order: Order) -> None:
    plan = planned(order, steps=120, per_task=8)["cars"]
    for first in range(0, len(plan.walk) - 119, 120):
        assert torch.equal(plan.walk[first : first + 120].sort().values, torch.arange(120))


def test_classes_come_one_after_another_in_an_order_of_their_own_for_each_epoch() -> None:
    plan = planned(SORTED, steps=30)["cars"]
    arriving = KNOWN["cars"][plan.walk]
    epochs = [arriving[:120].unique_consecutive(), arriving[120:].unique_consecutive()]
    assert [len(epoch) for epoch in epochs] == [10, 10]
    assert not torch.equal(*epochs)


def test_the_smaller_gamma_the_more_a_class_comes_at_once() -> None:
    def classes_per_batch(gamma: float) -> float:
        known = labels(10, 100)
        plan = planned(Order("dirichlet", gamma=gamma), steps=100, per_task=10, cars=known)["cars"]
        return float(np.mean([len(known[rows].unique()) for rows in shown(plan, 100)]))

    # 10 x (1 - 0.9 ** 10) = 6.5 classes in a batch of 10 independent images.
    mild, strong, extreme = (classes_per_batch(gamma) for gamma in (0.1, 0.01, 0.001))
    assert classes_per_batch(1000.0) == pytest.approx(6.5, abs=0.4)
    assert 6.0 > mild > strong > 1.0
    assert extreme < 3.5


def test_a_fixed_feed_shows_the_first_batch_in_every_step() -> None:
    plan = planned(FEW, feed="fixed")["cars"]
    assert all(torch.equal(rows, plan[0]) for rows in shown(plan))
    assert 2 <= len(KNOWN["cars"][plan[0]].unique()) <= 3


def test_cycle_cached_repeats_the_first_epoch_and_persistent_does_not() -> None:
    cycled, persistent = (
        planned(SORTED, steps=30, feed=feed)["cars"] for feed in ("cycle_cached", "persistent")
    )
    assert torch.equal(cycled.walk[:120], cycled.walk[120:])
    assert torch.equal(persistent.walk[:120], cycled.walk[:120])
    assert not torch.equal(persistent.walk[:120], persistent.walk[120:])


def test_mixed_tasks_share_a_batch() -> None:
    found = planned(MIXED, steps=3000, per_task=8)
    counts = torch.tensor([[len(found[task][step]) for task in KNOWN] for step in range(3000)])
    assert torch.equal(counts.sum(dim=1), torch.full((3000,), 8))
    assert counts.float().mean(dim=0).tolist() == pytest.approx([4, 4], abs=4.5 * 1.42 / 3000**0.5)
    assert counts.min() == 0  # a task may have no image in a batch


def test_a_step_leaves_out_a_task_without_images() -> None:
    sets = {
        task: ImageSet(np.arange(n, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8), 4)
        for task, n in (("cars", 120), ("signs", 54))
    }
    found = planned(MIXED, steps=400, per_task=2)
    stream = Stream(sets, 2, 400, 0, plans=found)
    tasks = [set(stream[step]) for step in range(400)]
    assert {frozenset(t) for t in tasks} == {
        frozenset({"cars"}),
        frozenset({"signs"}),
        frozenset({"cars", "signs"}),
    }
    for step in range(400):
        for task, pixels in stream[step].items():
            assert pixels[:, 0, 0, 0].tolist() == found[task][step].tolist()


def test_loading_processes_and_the_step_that_is_resumed_from_do_not_matter() -> None:
    sets = {
        "cars": ImageSet(
            np.arange(120, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8), 4
        )
    }

    def batches(workers: int, first: int = 0) -> list[Tensor]:
        stream = Stream(sets, 8, 12, 0, plans=planned(SOME, steps=12, cars=KNOWN["cars"]))
        loader = DataLoader(stream, batch_size=None, num_workers=workers, sampler=range(first, 12))
        return [batch["cars"] for batch in loader]

    alone, shared, resumed = batches(0), batches(2), batches(0, first=7)
    assert all(torch.equal(a, b) for a, b in zip(alone, shared, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(alone[7:], resumed, strict=True))


def test_a_stream_holds_indices_and_no_labels() -> None:
    sets = {"cars": ImageSet(np.zeros((120, 4, 4, 3), np.uint8), 4)}
    stream = Stream(sets, 8, 20, 0, plans=planned(SORTED, cars=KNOWN["cars"]))
    held = [vars(plan) for plan in (stream.plans or {}).values()]
    assert [set(fields) for fields in held] == [{"walk", "starts"}]
    assert not any(value is KNOWN["cars"] for fields in held for value in fields.values())


def test_an_order_that_is_built_from_labels_needs_them() -> None:
    for order in LABELED:
        with pytest.raises(DataError, match="is built from labels, and task 'cars' has none"):
            plans(order, {"cars": 9}, {"cars": None}, per_task=2, steps=3, seed=0, feed="resample")
    assert (
        len(
            plans(MIXED, {"cars": 9}, {"cars": None}, per_task=2, steps=3, seed=0, feed="resample")[
                "cars"
            ].walk
        )
        == 6
    )


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Order("few_classes"), "stream.classes: expected"),
        (lambda: Order("few_classes", (4, 2)), "stream.classes: expected"),
        (lambda: Order("dirichlet"), "stream.gamma has no value"),
        (lambda: planned(MIXED, feed="fixed"), "cannot mix the tasks"),
        (lambda: planned(SORTED, feed="once"), "an order of its own"),
    ],
)
def test_contradictions_are_refused(make: Any, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        make()


def test_plans_are_pinned() -> None:
    """A change of the draws makes old runs impossible to resume or to compare."""
    known = torch.arange(12) % 3
    for order, expected in PINNED.items():
        plan = planned(order, steps=2, per_task=4, cars=known)["cars"]
        assert [plan[0].tolist(), plan[1].tolist()] == expected, str(order)


PINNED = {
    FEW: [[4, 10, 5, 7], [11, 10, 6, 1]],
    SOME: [[8, 10, 4, 5], [7, 1, 2, 11]],
    SORTED: [[6, 9, 0, 3], [10, 7, 1, 4]],
    MIXED: [[5, 8, 0, 9], [3, 1, 7, 6]],
}
