"""Task vectors one tensor at a time: exact thresholds, what a matrix is, another origin, a merge without a copy."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adamerge.merging import Pool
from adamerge.merging.matrices import as_matrices, by_matrix
from adamerge.merging.selection import kth_magnitudes
from adamerge.merging.task_vectors import AboutAverage, InMemory, merged_tensor
from adamerge.rules.linear import TaskArithmetic
from adamerge.rules.ties import Ties


def task_vectors(pool: Pool) -> InMemory:
    return InMemory(pool.names, pool.base, pool.vectors)


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=4),
    st.integers(1, 3),
    st.integers(0, 1000),
    st.sampled_from(["integers", "normal", "sparse"]),
    st.data(),
)
@settings(max_examples=60, deadline=None)
def test_a_rank_among_all_tensors_equals_sorting_them(
    lengths: Any, tasks: Any, seed: int, kind: Any, data: Any
) -> None:
    generator = torch.Generator().manual_seed(seed)
    vectors = {}
    for i, length in enumerate(lengths):
        values = torch.randn(tasks, length, generator=generator)
        if kind == "integers":
            values = values.round()
        if kind == "sparse":
            values = values * (torch.rand(tasks, length, generator=generator) > 0.7)
        vectors[f"w{i}"] = values
    base = {key: torch.zeros(stack.shape[1]) for key, stack in vectors.items()}
    ranks = [data.draw(st.integers(0, sum(lengths))) for _ in range(tasks)]
    found = kth_magnitudes(InMemory(tuple(map(str, range(tasks))), base, vectors), ranks)
    for t, rank in enumerate(ranks):
        ordered = sorted(abs(x) for stack in vectors.values() for x in stack[t].tolist())
        assert found[t].item() == (ordered[rank - 1] if rank else 0.0)


def test_a_wrong_guess_is_mended_by_another_pass() -> None:
    """Every entry that the sample sees is large, every other one small: the first bracket misses the answer."""
    count = 1 << 19
    values = torch.arange(1.0, count + 1).view(1, -1) / count
    values[:, ::4] = 100.0
    vectors = InMemory(("a",), {"w": torch.zeros(count)}, {"w": values})
    for rank in (1, count // 2, 3 * count // 4, 3 * count // 4 + 1, count):
        assert kth_magnitudes(vectors, [rank]).item() == values.kthvalue(rank).values.item()


def test_query_key_and_value_are_three_matrices_or_one() -> None:
    stack = torch.randn(2, 12, 4)
    apart = as_matrices("visual.transformer.resblocks.0.attn.in_proj_weight", stack)
    assert [tuple(m.shape) for m in apart] == [(2, 4, 4)] * 3
    assert torch.equal(apart[1], stack[:, 4:8])
    (together,) = as_matrices("visual.transformer.resblocks.0.attn.in_proj_weight", stack, "together")
    assert torch.equal(together, stack)


def test_a_convolution_is_a_matrix_of_its_kernels() -> None:
    stack = torch.randn(2, 6, 3, 2, 2)
    (matrices,) = as_matrices("visual.conv1.weight", stack)
    assert matrices.shape == (2, 6, 12)
    assert torch.equal(by_matrix("visual.conv1.weight", stack, lambda m: m), stack)
    with pytest.raises(ValueError, match="no matrix"):
        as_matrices("visual.ln_post.bias", torch.randn(2, 5))


def test_about_the_average_the_vectors_add_up_to_nothing_and_give_the_same_experts(pool: Any) -> None:
    vectors = task_vectors(pool)
    centred = AboutAverage(vectors)
    for key in centred.keys:
        torch.testing.assert_close(centred.stack(key).sum(dim=0), torch.zeros_like(pool.base[key]))
        torch.testing.assert_close(
            centred.base(key) + centred.stack(key), vectors.base(key) + vectors.stack(key)
        )


@pytest.mark.parametrize("rule", [TaskArithmetic(0.4), Ties(top_k=0.5, scale=0.7)])
def test_tensor_by_tensor_is_the_merge_of_the_pool(pool: Any, rule: Any) -> None:
    vectors = task_vectors(pool)
    changed, weights = rule.prepare(vectors), rule.weights(pool.names)
    for key, expected in rule(pool).static().items():
        assert torch.equal(merged_tensor(key, vectors, changed, weights, torch.float64), expected)


def test_a_linear_rule_copies_no_vector(pool: Any) -> None:
    for key, stack in TaskArithmetic()(pool).vectors.items():
        assert stack.data_ptr() == pool.vectors[key].data_ptr()
