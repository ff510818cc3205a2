"""Task vectors in 8, 4 or 3 bits: the codes, what they stand for, and the merge and its gradient on them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adamerge.errors import PoolError
from adamerge.merging import merge_tensor
from adamerge.merging.compact import as_vectors, forms_of, kept_as
from adamerge.merging.mixing import mixed_linear
from adamerge.merging.pool import stack_task_vectors
from adamerge.merging.quantised import BITS, INT3, INT4, INT8, Quantised, bytes_of
from adamerge.methods.adamerging import AdaMerging
from adamerge.rules.linear import TaskArithmetic
from adamerge.rules.ties import Ties

DTYPES = list(BITS)


def naive(vector: np.ndarray, bits: int) -> tuple[np.ndarray, float, float]:
    """(codes, step, zero) by the formula, number by number in float64."""
    low, high = min(0.0, *vector), max(0.0, *vector)
    step = (high - low) / (2**bits - 1)
    if step == 0.0:
        return np.zeros(len(vector)), 0.0, 0.0
    zero = round(-low / step)
    return np.array([min(max(round(x / step) + zero, 0), 2**bits - 1) for x in vector]), step, float(zero)


def bit_by_bit(packed: Tensor, bits: int) -> list[int]:
    """The codes of one vector's bytes, read as one long row of bits, the lowest first."""
    row = [byte >> i & 1 for byte in packed.flatten().tolist() for i in range(8)]
    return [sum(bit << i for i, bit in enumerate(row[at : at + bits])) for at in range(0, len(row), bits)]


@pytest.mark.parametrize("dtype", DTYPES)
@given(st.integers(1, 41), st.integers(1, 3), st.floats(-1.0, 1.0), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_codes_are_those_of_the_formula(dtype: Any, length: int, tasks: int, shift: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    stack = torch.randn(tasks, length, generator=generator) + shift
    kept = Quantised.of(stack, dtype)
    for row, vector in enumerate(stack):
        codes, step, zero = naive(vector.double().numpy(), BITS[dtype])
        found = np.array(bit_by_bit(kept.codes[row], BITS[dtype])[:length])
        # Where float32 stands between two codes either is right.
        assert np.abs(found - codes).max() <= (
            1 if np.abs(vector.numpy() / step % 1 - 0.5).min() < 1e-3 else 0
        )
        assert kept.steps[row].item() == pytest.approx(step, rel=1e-6)
        assert kept.zeros[row].item() == zero or abs(abs(min(0.0, *vector.tolist()) / step % 1) - 0.5) < 1e-3
        expected = kept.steps[row].item() * (found - kept.zeros[row].item())
        np.testing.assert_allclose(kept.dense()[row].numpy(), expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_entry_is_off_by_more_than_half_a_step_and_zero_by_nothing(dtype: Any) -> None:
    torch.manual_seed(0)
    stack = torch.randn(4, 4099) * torch.tensor([[1.0], [1e-3], [1e-6], [1e3]])
    stack[:, ::3] = 0.0
    stack[1].abs_()
    stack[2].abs_().neg_()
    kept = Quantised.of(stack, dtype)
    off = (kept.dense() - stack).abs() / kept.steps.unsqueeze(1)
    assert off.max() <= 0.5 + 1e-4
    assert off.max() > 0.45
    assert bool((kept.dense()[stack == 0] == 0).all())
    # Both ends of the range are met, so that no code is wasted.
    ends = torch.stack([stack.amin(1).clamp(max=0), stack.amax(1).clamp(min=0)])
    found = torch.stack([kept.dense().amin(1), kept.dense().amax(1)])
    assert bool(((ends - found).abs() <= 0.5001 * kept.steps).all())


@pytest.mark.parametrize("dtype", DTYPES)
def test_columns_and_rows_of_zeros(dtype: Any) -> None:
    stack = torch.randn(3, 53)
    stack[1] = 0.0
    kept = Quantised.of(stack, dtype)
    assert bool((kept.dense()[1] == 0).all())
    for first, last in [(0, 53), (0, 1), (7, 9), (8, 16), (50, 53), (13, 13)]:
        assert torch.equal(kept.columns(slice(first, last)), kept.dense()[:, first:last])


@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_is_that_of_the_bits(dtype: Any) -> None:
    kept = Quantised.of(torch.randn(8, 80_000), dtype)
    assert kept.codes.nbytes == bytes_of(dtype, 8 * 80_000) == 80_000 * BITS[dtype]
    assert kept.nbytes - kept.codes.nbytes == 2 * 8 * 4
    assert (kept.dtype, kept.shape) == (dtype, (8, 80_000))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("parts", [1, 3])
def test_merge_and_contraction_are_those_of_the_numbers_that_the_codes_stand_for(
    dtype: Any, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adamerge.merging.functional._PIECE", 7)
    torch.manual_seed(0)
    base, kept = torch.randn(3, 35), Quantised.of(torch.randn(4, 105), dtype)
    found, expected = (torch.rand(parts, 4, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    ours = merge_tensor(found.requires_grad_(), base, kept)
    theirs = merge_tensor(expected.requires_grad_(), base, kept.dense())
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("mode", ["weights", "outputs"])
def test_so_is_a_layer_that_is_mixed_by_image(mode: Any) -> None:
    torch.manual_seed(0)
    x, gates, weight, bias = torch.randn(2, 3, 5), torch.rand(2, 4), torch.randn(6, 5), torch.randn(6)
    weights, biases = (Quantised.of(torch.randn(4, n), INT4) for n in (30, 6))
    results = []
    pairs: list[Any] = [(weights, biases), (weights.dense(), biases.dense())]
    for many, few in pairs:
        inputs = [t.clone().requires_grad_() for t in (x, gates)]
        out = mixed_linear(inputs[0], inputs[1], weight, bias, many, few, mode=mode)
        out.square().sum().backward()
        results.append([out, *(t.grad for t in inputs)])
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-6)


def quantised(pool: Any, dtype: Any) -> Any:
    vectors = as_vectors({key: Quantised.of(stack, dtype) for key, stack in pool.vectors.items()})
    return replace(pool, vectors=vectors)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_round_trains_as_on_the_dequantised_vectors(pool: Any, images: Any, dtype: Any) -> None:
    few = quantised(pool, dtype)
    tables = []
    for each in (few, replace(pool, vectors=dict(few.vectors))):
        method = AdaMerging(each).double()
        optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            with method.merged_once() as merged:
                for task, given in images.items():
                    method.logits(given, task).square().mean().backward()
                merged.contract_gradient()
            optimizer.step()
        tables.append(method.merging.values.detach())
    torch.testing.assert_close(*tables, rtol=0, atol=1e-6)
    assert not torch.equal(tables[0], torch.full_like(tables[0], 0.3))


def test_codes_are_all_that_a_merge_keeps_for_its_backward(pool: Any) -> None:
    method = AdaMerging(quantised(pool, INT4))
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda t: t):
        method.merge()
    assert all(tensor.numel() <= len(pool.names) * len(method.layers) for tensor in saved)


def test_rules_give_back_codes_where_they_leave_vectors_as_they_are(pool: Any) -> None:
    few = quantised(pool, INT3)
    assert kept_as(few.vectors) == INT3
    plain, ties = TaskArithmetic()(few), Ties()(few)
    assert all(plain.vectors.forms[key] is form for key, form in few.vectors.forms.items())  # type: ignore[attr-defined]
    assert kept_as(ties.vectors) == INT3
    assert all(isinstance(form, Quantised) for form in forms_of(ties.vectors).values())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_codes_keep_their_steps_when_the_model_around_them_changes_its_type(pool: Any, dtype: Any) -> None:
    few = quantised(pool, INT8)
    moved = few.map(lambda tensor: tensor.to(dtype))
    assert next(iter(moved.base.values())).dtype == dtype
    assert all(torch.equal(few.vectors[key], moved.vectors[key]) for key in few.keys)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float32])
def test_a_pool_keeps_the_tensors_that_an_expert_changed(dtype: Any) -> None:
    base = {"a": torch.zeros(3, 5), "b": torch.ones(4), "c": torch.ones(2)}
    experts = [{"a": torch.randn(3, 5), "b": base["b"]}, {"b": base["b"] + torch.tensor([0.0, 0, 0, 1e-7])}]
    vectors = stack_task_vectors(base, experts, 2, dtype)
    assert list(vectors) == ["a", "b"]
    assert bool((vectors["a"][1] == 0).all())
    assert vectors["b"][1].tolist() == pytest.approx([0, 0, 0, 2**-23])
    with pytest.raises(PoolError, match=r"not kept as torch\.int16"):
        stack_task_vectors(base, experts, 2, torch.int16)
