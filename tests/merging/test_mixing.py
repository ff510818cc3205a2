"""Mixed linear layers: both ways equal a loop over the images, and the cheaper one is chosen by counting."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from adamerge.merging import mixing
from adamerge.merging.mixing import cheaper, cost, mixed_linear

N, TOKENS, INPUTS, OUTPUTS, EXPERTS = 5, 3, 4, 6, 2


ours: Any = mixed_linear  # called with tuples of tensors


def inputs(gates: int) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    shapes = ((N, TOKENS, INPUTS), (gates, EXPERTS), (OUTPUTS, INPUTS), (OUTPUTS,))
    x, g, weight, bias = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
    weights = torch.randn(EXPERTS, OUTPUTS * INPUTS, dtype=torch.float64)
    biases = torch.randn(EXPERTS, OUTPUTS, dtype=torch.float64)
    return x.requires_grad_(), g.requires_grad_(), weight, bias, weights, biases


def looped(x: Any, gates: Any, weight: Any, bias: Any, weights: Any, biases: Any) -> Tensor:
    """One image at a time, with the merged layer written out."""
    rows = []
    for n in range(N):
        g = gates[n if len(gates) > 1 else 0]
        own = weight + sum(g[k] * weights[k].view(OUTPUTS, INPUTS) for k in range(EXPERTS))
        rows.append(x[n] @ own.T + bias + sum(g[k] * biases[k] for k in range(EXPERTS)))
    return torch.stack(rows)


@pytest.mark.parametrize("mode", ["weights", "outputs"])
@pytest.mark.parametrize("gates", [1, N])
@pytest.mark.parametrize("chunk", [1, 2, 1 << 20])
def test_equals_a_loop_over_the_images(
    mode: Any, gates: Any, chunk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixing, "_CHUNK_BYTES", chunk * OUTPUTS * INPUTS * 8)
    arguments = inputs(gates)
    own, expected = ours(*arguments, mode=mode), looped(*arguments)
    torch.testing.assert_close(own, expected)
    upstream = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad(own, arguments[:2], upstream),
        torch.autograd.grad(expected, arguments[:2], upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("mode", ["weights", "outputs"])
def test_gradients_against_finite_differences(mode: Any) -> None:
    x, gates, *rest = inputs(N)
    assert torch.autograd.gradcheck(lambda a, b: ours(a, b, *rest, mode=mode), (x, gates))


def test_narrow_task_vectors_are_widened() -> None:
    arguments = [a.detach().float() for a in inputs(N)]
    narrow = [*arguments[:4], arguments[4].bfloat16(), arguments[5].bfloat16()]
    wide = [*arguments[:4], narrow[4].float(), narrow[5].float()]
    for mode in ("weights", "outputs"):
        torch.testing.assert_close(ours(*narrow, mode=mode), ours(*wide, mode=mode))


def test_the_count_is_that_of_the_reference_shapes() -> None:
    """ViT-B/32: 50 tokens, 768 to 3072, 8 experts. Counted by hand, in operations."""
    size = 768 * 3072
    assert cost("outputs", 1, 50, 1, 8, 768, 3072).operations == 2 * size * 50 * 9
    assert cost("weights", 1, 50, 1, 8, 768, 3072).operations == 2 * size * (8 + 50)


@pytest.mark.parametrize(
    ("tokens", "gates", "mode"),
    [(50, 16, "weights"), (50, 1, "weights"), (1, 16, "outputs"), (197, 16, "weights"), (2, 16, "outputs")],
)
def test_many_tokens_ask_for_mixed_weights_and_few_for_mixed_outputs(
    tokens: int, gates: int, mode: Any
) -> None:
    assert cheaper(16, tokens, gates, 8, 768, 3072) == mode
