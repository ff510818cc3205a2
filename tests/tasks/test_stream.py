from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from adamerge.errors import ConfigError
from adamerge.tasks.images import ImageSet
from adamerge.tasks.stream import Stream
from adamerge.tasks.task import Source

FEEDS = ["resample", "persistent", "cycle_cached"]


def images(n: int, size: int = 4) -> ImageSet:
    """Image i is all of colour i."""
    return ImageSet(
        np.arange(n, dtype=np.uint8)[:, None, None, None] * np.ones((1, size, size, 3), np.uint8), size
    )


def stream(
    feed: str = "resample", per_task: int = 6, seed: int = 0, steps: int | None = 50, **sizes: int
) -> Stream:
    sets = {task: images(n) for task, n in (sizes or {"cars": 20, "signs": 9}).items()}
    return Stream(sets, per_task, steps, seed, feed)  # type: ignore[arg-type]


@pytest.mark.parametrize("feed", FEEDS)
def test_a_batch_is_a_pure_function_of_seed_task_and_step(feed: str) -> None:
    one, two = stream(feed), stream(feed)
    backwards = {step: two.indices("cars", step) for step in reversed(range(50))}
    assert all(torch.equal(one.indices("cars", step), backwards[step]) for step in range(50))
    for other in (stream(feed, seed=1).indices("cars", 3), stream(feed).indices("cars", 4)):
        assert not torch.equal(one.indices("cars", 3), other)


@pytest.mark.parametrize("feed", FEEDS)
def test_the_global_generators_are_neither_used_nor_moved(feed: str) -> None:
    torch.manual_seed(1)
    first = stream(feed).indices("cars", 2)
    before = torch.get_rng_state()
    again = stream(feed).indices("cars", 2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)


@pytest.mark.parametrize("feed", FEEDS)
def test_other_tasks_do_not_change_a_task(feed: str) -> None:
    alone, among = stream(feed, cars=20), stream(feed, aerial=7, cars=20, signs=9)
    assert all(torch.equal(alone.indices("cars", step), among.indices("cars", step)) for step in range(50))
    twins = stream(feed, cars=20, signs=20)
    assert not torch.equal(twins.indices("cars", 0), twins.indices("signs", 0))


@pytest.mark.parametrize("feed", FEEDS)
def test_batches_hold_the_drawn_images_of_every_task(feed: str) -> None:
    data = stream(feed)
    batch = data[7]
    assert list(batch) == ["cars", "signs"]
    for task, pixels in batch.items():
        assert pixels.shape == (6, 3, 4, 4)
        assert pixels.dtype == torch.uint8
        assert torch.equal(pixels[:, 0, 0, 0].long(), data.indices(task, 7))


@pytest.mark.parametrize("feed", FEEDS)
def test_loading_processes_do_not_matter(feed: str) -> None:
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)) for _ in range(12)]
    data = Stream({"cars": ImageSet(pictures, 8)}, 5, 7, 3, feed)  # type: ignore[arg-type]
    alone, shared = (
        [batch["cars"] for batch in DataLoader(data, batch_size=None, num_workers=workers)]
        for workers in (0, 2)
    )
    assert len(alone) == len(shared) == len(data) == 7
    assert all(torch.equal(a, b) for a, b in zip(alone, shared, strict=True))


def test_resample_draws_without_replacement_and_uniformly() -> None:
    draws = [stream(steps=4000).indices("cars", step) for step in range(4000)]
    assert all(len(set(draw.tolist())) == 6 for draw in draws)
    counts = torch.bincount(torch.cat(draws), minlength=20).float()
    # Each image's count is binomial (4000, 6 / 20): mean 1200, standard deviation 29.
    assert (counts - 1200).abs().max() < 4.5 * 29
    first = torch.bincount(torch.stack(draws)[:, 0], minlength=20).float()
    assert (first - 200).abs().max() < 4.5 * 13.8


def test_resample_is_fresh_at_each_step() -> None:
    # Two independent draws of 6 of 20 share 6 * 6 / 20 = 1.8 images on average; an epoch walk would share none.
    data = stream(steps=2000)
    draws = [set(data.indices("cars", step).tolist()) for step in range(2000)]
    shared = [len(a & b) for a, b in zip(draws, draws[1:], strict=False)]
    assert np.mean(shared) == pytest.approx(1.8, abs=0.1)


@pytest.mark.parametrize("total", [20, 18, 6])
def test_persistent_covers_each_epoch_exactly_once(total: int) -> None:
    data = stream("persistent", steps=60, cars=total)
    walk = torch.cat([data.indices("cars", step) for step in range(60)])
    epochs = [walk[i : i + total] for i in range(0, len(walk) - total + 1, total)]
    assert len(epochs) == 60 * 6 // total
    assert all(torch.equal(epoch.sort().values, torch.arange(total)) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1]), "not shuffled anew"


@pytest.mark.parametrize("feed", FEEDS)
def test_a_small_task_gives_all_its_images_once_and_warns(
    feed: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        data = stream(feed, cars=4, signs=9)
    assert [record.getMessage() for record in caplog.records] == [
        "Task cars has only 4 images; each step takes all of them."
    ]
    for step in range(5):
        assert sorted(data.indices("cars", step).tolist()) == [0, 1, 2, 3]
        assert len(data[step]["signs"]) == 6


@pytest.mark.parametrize("per_task", [1, 2, 5, 6, 7, 50])
@pytest.mark.parametrize(
    "sizes", [{"cars": 20}, {"cars": 6, "signs": 9, "aerial": 1}, {"signs": 12, "cars": 12}]
)
def test_once_shows_each_image_of_each_task_once_task_after_task(
    per_task: int, sizes: dict[str, int]
) -> None:
    data = stream("once", per_task, steps=None, **sizes)
    seen: list[tuple[str, int]] = []
    for step in range(len(data)):
        batch = data[step]
        assert len(batch) == 1, "one task's turn"
        ((task, pixels),) = batch.items()
        assert 1 <= len(pixels) <= per_task
        shown = data.indices(task, step).tolist()
        assert pixels[:, 0, 0, 0].tolist() == shown
        assert all(len(data.indices(other, step)) == 0 for other in sizes if other != task)
        seen += [(task, i) for i in shown]
    assert sorted(seen) == sorted((task, i) for task, n in sizes.items() for i in range(n))
    assert [task for task, _ in seen] == [task for task, n in sizes.items() for _ in range(n)]


def test_once_is_shuffled_by_the_seed_and_ends_with_the_images() -> None:
    orders = [
        torch.cat([stream("once", 2, s, 10, cars=20).indices("cars", i) for i in range(10)]) for s in (0, 1)
    ]
    assert not torch.equal(orders[0], torch.arange(20))
    assert not torch.equal(*orders)
    assert len(stream("once", 1, steps=3, cars=20)) == 3
    with pytest.raises(ConfigError, match="images for 10 steps of 2 only"):
        stream("once", 2, steps=11, cars=20)
    with pytest.raises(ValueError, match="no end of its own"):
        stream("persistent", steps=None)


@pytest.mark.parametrize("total", [20, 18, 7])
def test_cycle_cached_repeats_its_first_order(total: int) -> None:
    data = stream("cycle_cached", steps=60, cars=total)
    walk = torch.cat([data.indices("cars", step) for step in range(60)])
    assert torch.equal(walk[:total].sort().values, torch.arange(total))
    assert not torch.equal(walk[:total], torch.arange(total)), "not shuffled"
    assert torch.equal(walk, walk[:total].repeat(60)[: len(walk)])


def test_labels_are_never_asked_for() -> None:
    class Secret(Source):
        def images(self, split: str) -> np.ndarray:
            return images(9)._pixels

        def labels(self, split: str) -> np.ndarray:
            raise AssertionError("adaptation asked for labels")

    data = Stream({"cars": ImageSet(Secret().images("test"), 4)}, 2, 3, 0)
    assert [set(batch) for batch in data] == [{"cars"}] * 3  # type: ignore[attr-defined]
    assert all(isinstance(pixels, torch.Tensor) for batch in data for pixels in batch.values())  # type: ignore[attr-defined]


def test_the_stream_ends() -> None:
    data = stream(steps=3)
    assert len(list(data)) == 3  # type: ignore[call-overload]
    with pytest.raises(IndexError, match="step 3 of a stream of 3"):
        data[3]


def test_another_feed_is_refused() -> None:
    with pytest.raises(ValueError, match="feed is 'cycle'"):
        stream("cycle")


def test_draws_are_pinned() -> None:
    """A change of the draws makes old runs impossible to resume or to compare."""
    assert stream().indices("cars", 3).tolist() == [14, 18, 10, 16, 12, 4]
    assert stream("persistent").indices("cars", 3).tolist() == [7, 13, 5, 6, 7, 15]
    assert stream("cycle_cached").indices("cars", 3).tolist() == [19, 6, 16, 0, 3, 14]
    assert stream("once", steps=4).indices("cars", 3).tolist() == [0, 8]
