"""Which images are adapted on and which are scored: parts that make the whole, and nothing but the name decides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adamerge.errors import ConfigError, DataError
from adamerge.tasks.images import ImageSet
from adamerge.tasks.protocol import AdaptOn, cut_rows, others, pool_rows
from adamerge.tasks.protocol import test_parts as parts_of
from adamerge.tasks.subsets import ImageSubset

HALF = AdaptOn.of({"share": 0.5})


@given(st.integers(4, 300), st.floats(0.3, 0.7), st.integers(0, 3))
def test_a_cut_makes_two_parts_of_a_split(total: int, share: float, number: int) -> None:
    rows = cut_rows("cars", total, share, number)
    rest = others(rows, total)
    assert len(rows) == round(share * total)
    assert torch.equal(torch.cat([rows, rest]).sort().values, torch.arange(total))
    assert torch.equal(rows, cut_rows("cars", total, share, number))


def test_a_cut_is_random_another_for_each_task_and_number() -> None:
    cuts = [cut_rows(task, 1000, 0.5, n) for task, n in (("cars", 0), ("cars", 1), ("dtd", 0))]
    assert not torch.equal(cuts[0], cuts[1])
    assert not torch.equal(cuts[0], cuts[2])
    # Of a random half, half lie among the first half: 250 expected, standard deviation 8.
    assert all(abs(int((rows < 500).sum()) - 250) < 40 for rows in cuts)


def test_a_cut_is_pinned() -> None:
    """Another cut would make inductive numbers of two versions incomparable."""
    assert cut_rows("signs", 12, 0.5).tolist() == [1, 3, 7, 8, 10, 11]


def test_a_pool_is_drawn_by_the_seed() -> None:
    assert pool_rows("cars", 5, None, 0).tolist() == pool_rows("cars", 5, 9, 3).tolist() == [0, 1, 2, 3, 4]
    first, second = pool_rows("cars", 100, 8, 0), pool_rows("cars", 100, 8, 1)
    assert len(set(first.tolist())) == 8
    assert not torch.equal(first, second)


def test_without_a_choice_the_whole_split_is_scored_and_has_no_parts() -> None:
    for own in (AdaptOn(), AdaptOn("validation"), None):
        parts = parts_of("cars", 10, AdaptOn(), own, None, 0)
        assert parts.scored.tolist() == list(range(10))
        assert parts.adapted is None
        assert parts.held_out is None


def test_with_a_share_the_unadapted_part_is_scored_whatever_the_seed_and_the_method() -> None:
    for own in (HALF, AdaptOn(), AdaptOn("train"), None):
        for seed in (0, 1):
            parts = parts_of("cars", 20, HALF, own, None, seed)
            assert torch.equal(parts.scored, others(cut_rows("cars", 20, 0.5), 20))
            assert parts.held_out is not None
            assert torch.equal(parts.held_out, parts.scored)
            assert parts.adapted is not None
            assert torch.equal(parts.adapted, cut_rows("cars", 20, 0.5))


def test_a_pool_of_the_share_is_what_was_adapted_on() -> None:
    parts = parts_of("cars", 20, HALF, HALF, 3, 5)
    assert parts.adapted is not None
    assert len(parts.adapted) == 3
    assert set(parts.adapted.tolist()) <= set(cut_rows("cars", 20, 0.5).tolist())
    assert len(parts.scored) == 10


def test_a_pool_of_the_test_split_leaves_the_whole_split_scored() -> None:
    parts = parts_of("cars", 20, AdaptOn(), AdaptOn(), 3, 5)
    assert len(parts.scored) == 20
    assert parts.adapted is not None
    assert parts.held_out is not None
    assert sorted([*parts.adapted.tolist(), *parts.held_out.tolist()]) == list(range(20))
    assert parts_of("cars", 20, AdaptOn(), None, 3, 5).adapted is None


@pytest.mark.parametrize(
    ("given", "protocol"),
    [
        ("test", "transductive"),
        ("train", "inductive"),
        ("validation", "inductive"),
        ({"share": 0.25}, "inductive"),
    ],
)
def test_the_protocol_is_inductive_where_no_scored_image_is_adapted_on(given: object, protocol: str) -> None:
    assert AdaptOn.of(given).protocol == protocol  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["tests", {"part": 0.5}, {"share": 0.5, "seed": 1}])
def test_another_choice_is_refused(given: object) -> None:
    with pytest.raises(ConfigError, match="expected test, train, validation"):
        AdaptOn.of(given)  # type: ignore[arg-type]


def test_a_part_without_images_is_refused() -> None:
    with pytest.raises(DataError, match="task dtd's 3 test images is 0; both parts need images"):
        cut_rows("dtd", 3, 0.1)


def test_a_part_of_a_set_shows_its_rows_and_has_an_identity_of_its_own() -> None:
    pixels = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    whole = ImageSet(pixels, 4)
    part = ImageSubset(whole, torch.tensor([1, 4, 5]))
    assert len(part) == 3
    assert part[torch.tensor([2, 0])][:, 0, 0, 0].tolist() == [5, 1]
    assert [b[:, 0, 0, 0].tolist() for b in part.batches(2)] == [[1, 4], [5]]
    digests = {whole.digest(), part.digest(), ImageSubset(whole, torch.tensor([1, 4, 3])).digest()}
    assert len(digests) == 3
    assert part.digest() == ImageSubset(ImageSet(pixels.copy(), 4), torch.tensor([1, 4, 5])).digest()
