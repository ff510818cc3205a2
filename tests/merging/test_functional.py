"""The functional merge against naive autograd, finite differences and its identities."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_pools import reordered
from torch import Tensor
from torch.func import functional_call

from adamerge.merging import Pool, merge_tensor
from adamerge.methods import AdaMerging
from adamerge.objectives.entropy import entropy

VARIANTS = [("task", "open_clip"), ("layer", "open_clip"), ("layer", "hf")]


def naive_loss(method: AdaMerging, images: dict[str, Tensor]) -> Tensor:
    """Scaled tensors added under autograd, one graph per task: the reference's own way."""
    table = method.merging.values
    if method.merging.clamp:
        table = table.clamp(0, 1)
    pool = method.pool
    total = torch.zeros((), dtype=torch.float64)
    for task, pixels in images.items():
        theta = dict(pool.base)
        for layer in method.layers:
            rows = table if len(table) == 1 else table[layer.rows]
            parts = pool.base[layer.key].chunk(len(layer.names))
            vectors = pool.vectors[layer.key].view(len(pool.names), *pool.base[layer.key].shape)
            cut = [v.chunk(len(layer.names)) for v in vectors]
            merged = [
                part + sum(rows[min(i, len(rows) - 1), k] * cut[k][i] for k in range(len(pool.names)))
                for i, part in enumerate(parts)
            ]
            theta[layer.key] = torch.cat(merged)
        features = functional_call(pool.encoder, theta, (pixels,))
        total = total + entropy(method.classify(features, task)).mean()
    return total


def round_gradient(method: AdaMerging, images: dict[str, Tensor]) -> Tensor:
    method.zero_grad()
    with method.merged_once() as merged:
        for task, pixels in images.items():
            entropy(method.logits(pixels, task)).mean().backward()
        merged.contract_gradient()
    gradient = method.merging.values.grad
    assert gradient is not None
    return gradient.clone()


@pytest.mark.parametrize(("granularity", "layout"), VARIANTS)
@pytest.mark.parametrize("clamp", [True, False])
def test_gradient_equals_naive_autograd(
    pool: Any, images: Any, granularity: Any, layout: Any, clamp: bool
) -> None:
    method = AdaMerging(pool, granularity, clamp=clamp, layout=layout).double()
    with torch.no_grad():
        method.merging.values.add_(0.6 * torch.randn_like(method.merging.values))
    ours = round_gradient(method, images)
    (naive,) = torch.autograd.grad(naive_loss(method, images), method.merging.values)
    torch.testing.assert_close(ours, naive, rtol=1e-10, atol=1e-12)
    assert ours.abs().max() > 1e-4


@pytest.mark.parametrize(("granularity", "layout"), VARIANTS)
def test_gradient_equals_finite_differences(pool: Any, images: Any, granularity: Any, layout: Any) -> None:
    method = AdaMerging(pool, granularity, layout=layout).double()
    ours = round_gradient(method, images)
    values = method.merging.values
    step = 1e-6
    for index in torch.cartesian_prod(torch.arange(values.shape[0]), torch.arange(values.shape[1])).tolist():
        with torch.no_grad():
            original = values[tuple(index)].item()
            values[tuple(index)] = original + step
            above = naive_loss(method, images)
            values[tuple(index)] = original - step
            below = naive_loss(method, images)
            values[tuple(index)] = original
        numeric = (above - below) / (2 * step)
        torch.testing.assert_close(ours[tuple(index)], numeric, rtol=1e-5, atol=1e-8)


def test_gradient_is_the_inner_product_with_the_task_vector(pool: Any, images: Any) -> None:
    """dL/dlambda[l, k] = <dL/dtheta[l], tau[k, l]>, zero strictly outside the clamp and not at its bounds."""
    method = AdaMerging(pool).double()
    with torch.no_grad():
        method.merging.values[0, 0], method.merging.values[0, 1] = 1.2, -0.1
        method.merging.values[1, 0], method.merging.values[1, 1] = 1.0, 0.0
    theta = {key: value.requires_grad_() for key, value in method.merge().items()}
    leaves = {key: value.detach().requires_grad_() for key, value in theta.items()}
    total = sum(
        entropy(method.classify(functional_call(pool.encoder, leaves, (x,)), t)).mean()
        for t, x in images.items()
    )
    total.backward()
    expected = torch.stack(
        [pool.vectors[layer.key] @ leaves[layer.key].grad.flatten() for layer in method.layers]
    )
    expected[0, :2] = 0.0
    torch.testing.assert_close(round_gradient(method, images), expected, rtol=1e-10, atol=1e-12)
    assert expected[1, 0] != 0
    assert expected[1, 1] != 0


def test_one_update_equals_the_naive_joint_update(pool: Any, images: Any) -> None:
    ours, naive = AdaMerging(pool).double(), AdaMerging(pool).double()
    for method, gradient in ((ours, round_gradient(ours, images)), (naive, None)):
        optimizer = torch.optim.Adam(method.parameters(), lr=1e-3)
        if gradient is None:
            naive_loss(method, images).backward()
        optimizer.step()
    torch.testing.assert_close(ours.merging.values, naive.merging.values, rtol=0, atol=1e-9)


@given(
    st.integers(1, 5),
    st.sampled_from([1, 2, 3]),
    st.integers(1, 40),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
@settings(max_examples=40, deadline=None)
def test_merge_tensor_adds_scaled_vectors(tasks: Any, parts: Any, length: Any, dtype: Any) -> None:
    torch.manual_seed(tasks * 100 + parts * 10 + length)
    base, rows = torch.randn(parts, length), torch.randn(parts, tasks)
    vectors = torch.randn(tasks, parts * length).to(dtype)
    expected = base + torch.einsum("pt,tpn->pn", rows, vectors.float().view(tasks, parts, length))
    torch.testing.assert_close(merge_tensor(rows, base, vectors), expected, rtol=1e-5, atol=1e-5)


def test_narrow_vectors_are_merged_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adamerge.merging.functional._PIECE", 7)
    torch.manual_seed(0)
    base, vectors = torch.randn(5, 10), torch.randn(3, 50).bfloat16()
    rows = torch.randn(1, 3, requires_grad=True)
    merged = merge_tensor(rows, base, vectors)
    torch.testing.assert_close(merged, base + (rows @ vectors.float()).view(5, 10), rtol=1e-5, atol=1e-5)
    merged.square().sum().backward()
    torch.testing.assert_close(
        rows.grad, (2 * merged.flatten() @ vectors.float().t())[None], rtol=1e-4, atol=1e-4
    )


def test_memory_of_a_round_does_not_grow_with_batches(pool: Any, images: Any) -> None:
    """Nothing of the merge is kept for autograd but the task vectors themselves."""
    method = AdaMerging(pool).double()
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        method.merge()
    storages = {stack.untyped_storage().data_ptr() for stack in pool.vectors.values()}
    large = [t for t in saved if t.numel() > len(pool.names) * len(method.layers)]
    assert large
    assert all(t.untyped_storage().data_ptr() in storages for t in large)


class TestIdentities:
    def test_start_is_task_arithmetic(self, pool: Pool) -> None:
        merged = AdaMerging(pool, start=0.3).double().merged_state_dict()
        for key, stack in pool.vectors.items():
            torch.testing.assert_close(
                merged[key].flatten(), pool.base[key].flatten() + 0.3 * stack.sum(dim=0)
            )

    def test_zero_is_the_base(self, pool: Pool) -> None:
        merged = AdaMerging(pool, start=0.0).double().merged_state_dict()
        assert all(torch.equal(merged[key], value) for key, value in pool.base.items())

    @pytest.mark.parametrize("column", range(3))
    def test_one_hot_is_the_expert(self, pool: Pool, column: int) -> None:
        method = AdaMerging(pool, start=torch.eye(3)[column]).double()
        merged, expert = method.merged_state_dict(), pool.expert(pool.names[column])
        for key, value in expert.items():
            torch.testing.assert_close(merged[key], value, rtol=1e-12, atol=1e-12)

    def test_layouts_agree_at_the_start(self, pool: Pool, images: Any) -> None:
        one, other = AdaMerging(pool).double(), AdaMerging(pool, layout="hf").double()
        torch.testing.assert_close(
            one.logits(images["signs"], "signs"), other.logits(images["signs"], "signs")
        )
        assert len(other.merging.layers) == len(one.merging.layers) + 4

    def test_order_of_tasks_does_not_matter(self, images: Any) -> None:
        from conftest import make_pool

        pool = make_pool()
        swapped = reordered(pool, range(len(pool.names))[::-1])
        start = torch.rand(len(pool.keys), 3, dtype=torch.float64)
        ours = AdaMerging(pool, start=start).double().logits(images["digits"], "digits")
        theirs = AdaMerging(swapped, start=start.flip(1)).double().logits(images["digits"], "digits")
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("coefficient", [0.2, 0.3, 1 / 3])
def test_one_number_for_all_merges_to_the_bits_of_a_row_of_it(coefficient: float) -> None:
    torch.manual_seed(0)
    base, vectors = torch.randn(1024), torch.randn(3, 1024)
    row = torch.full((1, 3), coefficient)
    expanded = torch.tensor([[coefficient]]).expand(1, 3)
    assert torch.equal(merge_tensor(row, base, vectors), merge_tensor(expanded, base, vectors))
