"""TIES by hand-made cases, and restated one entry at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adamerge.merging import Head, Pool
from adamerge.rules.ties import Ties


def flat_pool(vectors: Tensor) -> Pool:
    """A pool of one tensor of ten zeros and the given task vectors (T, 10)."""
    names = tuple(f"t{i}" for i in range(len(vectors)))
    heads = {name: Head(torch.ones(2, 1)) for name in names}
    return Pool(torch.nn.Identity(), {"w": torch.zeros(vectors.shape[1])}, {"w": vectors}, names, heads)


def merged(pool: Pool) -> Tensor:
    return pool.static()["w"]


def naive_ties(vectors: Tensor, top_k: float, aggregate: str, size: int) -> Tensor:
    """A restatement in plain Python loops of TIES (arXiv 2306.01708), one entry at a time."""
    rows = vectors.tolist()
    count = len(rows[0])
    trimmed = []
    for row in rows:
        magnitudes = sorted([0.0] * (size - count) + [abs(x) for x in row])
        dropped = size - int(top_k * size)
        threshold = magnitudes[dropped - 1] if dropped else 0.0
        trimmed.append([x if abs(x) >= threshold else 0.0 for x in row])
    sums = [sum(row[i] for row in trimmed) for i in range(count)]
    signs = [(x > 0) - (x < 0) for x in sums]
    majority = (sum(signs) > 0) - (sum(signs) < 0) or 1
    result = []
    for i in range(count):
        kept = [row[i] for row in trimmed if row[i] * (signs[i] or majority) > 0]
        result.append(sum(kept) / (max(1, len(kept)) if aggregate == "mean" else 1))
    return torch.tensor(result)


class TestTies:
    vectors = torch.tensor(
        [
            [4.0, -3.0, 0.1, 2.0, 0.0, 1.0, -2.0, 0.5, 0.2, -0.3],
            [-4.0, -1.0, 0.2, 3.0, 0.0, -5.0, 2.0, 0.1, 0.3, 0.4],
            [1.0, 2.0, 0.3, -2.5, 6.0, 4.0, 0.0, 0.2, 0.1, -0.5],
        ]
    )

    def test_by_hand(self) -> None:
        # top_k 0.4 drops 6 of 10: the 6th smallest magnitude is the threshold, so 5 entries survive.
        # kept: t0 {4,-3,2,1,-2}  t1 {-4,-1,3,-5,2}  t2 {1,2,-2.5,6,4}
        # sums: 1, -2, ., 2.5, 6, 0, 0: signs +,-,0,+,+,0,0,... majority of the elected signs is +.
        result = merged(Ties(top_k=0.4, scale=1.0)(flat_pool(self.vectors)))
        expected = [4 + 1, -3 - 1, 0, 2 + 3, 6, 1 + 4, 2, 0, 0, 0]
        torch.testing.assert_close(result, torch.tensor(expected, dtype=torch.float32))

    def test_mean_divides_by_those_who_agree(self) -> None:
        result = merged(Ties(top_k=0.4, scale=1.0, aggregate="mean")(flat_pool(self.vectors)))
        expected = [5 / 2, -4 / 2, 0, 5 / 2, 6, 5 / 2, 2, 0, 0, 0]
        torch.testing.assert_close(result, torch.tensor(expected, dtype=torch.float32))

    def test_max_takes_the_largest_of_those_who_agree(self) -> None:
        result = merged(Ties(top_k=0.4, scale=1.0, aggregate="max")(flat_pool(self.vectors)))
        expected = [4, -3, 0, 3, 6, 4, 2, 0, 0, 0]
        torch.testing.assert_close(result, torch.tensor(expected, dtype=torch.float32))

    def test_max_takes_one_of_equally_large(self) -> None:
        result = merged(Ties(top_k=1.0, scale=1.0, aggregate="max")(flat_pool(torch.full((3, 10), -2.0))))
        assert torch.equal(result, torch.full((10,), -2.0))

    @pytest.mark.parametrize("size", [0, -3])
    def test_a_reference_size_is_a_number_of_entries(self, size: int) -> None:
        with pytest.raises(ValueError, match="reference_size"):
            Ties(reference_size=size)

    def test_the_rule_of_its_own_counts_the_encoder(self) -> None:
        assert Ties().reference_size is None

    def test_equal_magnitudes_at_the_threshold_are_all_kept(self) -> None:
        result = merged(Ties(top_k=0.2, scale=1.0)(flat_pool(torch.ones(1, 10))))
        assert torch.equal(result, torch.ones(10))

    def test_reference_size_keeps_more(self) -> None:
        few = Ties(top_k=0.2, scale=1.0)(flat_pool(self.vectors[:1]))
        more = Ties(top_k=0.2, scale=1.0, reference_size=20)(flat_pool(self.vectors[:1]))
        assert int((merged(few) != 0).sum()) == 4  # 4, -3 and both at the threshold 2
        assert int((merged(more) != 0).sum()) == 5

    @given(
        st.integers(1, 4),
        st.integers(1, 12),
        st.sampled_from([0.1, 0.2, 0.5, 1.0]),
        st.sampled_from(["sum", "mean"]),
        st.integers(0, 10),
        st.integers(0, 1000),
    )
    @settings(max_examples=80, deadline=None)
    def test_equals_the_restatement(
        self, tasks: Any, length: Any, top_k: Any, aggregate: Any, extra: Any, seed: int
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        # Small integers make zero sums and ties at the threshold common.
        vectors = torch.randint(-3, 4, (tasks, length), generator=generator).float()
        rule = Ties(top_k, 1.0, aggregate, reference_size=length + extra)
        expected = naive_ties(vectors, top_k, aggregate, length + extra)
        torch.testing.assert_close(merged(rule(flat_pool(vectors))), expected)

    def test_one_task_untrimmed_is_the_expert(self, pool: Any) -> None:
        single = replace(pool, vectors={k: v[:1] for k, v in pool.vectors.items()}, names=pool.names[:1])
        state = Ties(top_k=1.0, scale=1.0)(single).static()
        for key, value in single.expert(pool.names[0]).items():
            torch.testing.assert_close(state[key], value)

    def test_threshold_counts_the_whole_vector(self, pool: Any) -> None:
        """The share is of all entries together, not of each tensor."""
        kept = sum(int((stack[0] != 0).sum()) for stack in Ties(top_k=0.25)(pool).vectors.values())
        total = sum(value.numel() for value in pool.base.values())
        assert kept <= int(0.25 * total) + 1

    @pytest.mark.parametrize("top_k", [0.0, 1.5, -0.2])
    def test_share_out_of_range(self, top_k: float) -> None:
        with pytest.raises(ValueError, match="top_k"):
            Ties(top_k=top_k)
