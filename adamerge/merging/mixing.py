"""Linear layers whose weight is a mixture chosen per image: y = x (W + sum_k g_k V_k)^T + b + sum_k g_k v_k.

There are two exact ways to compute it. Mixing the *weights* builds one matrix per image; mixing the *outputs* runs the
1 + T products and adds them up. Which is faster depends on the shape, so it is counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from adamerge.merging.precision import full_precision, wide
from adamerge.merging.quantised import Quantised

Mode = Literal["weights", "outputs"]

# Floating-point operations in the time of one byte moved. CPUs and GPUs in float32 lie between 10 and 30.
_OPERATIONS_PER_BYTE = 20.0
# Weights mixed for several images at once take at most this much memory.
_CHUNK_BYTES = 256 << 20


@dataclass(frozen=True)
class Cost:
    """Work of one mixed layer: floating-point operations and bytes moved."""

    operations: float
    bytes: float

    @property
    def time(self) -> float:
        """In units of one operation."""
        return self.operations + self.bytes * _OPERATIONS_PER_BYTE


def cost(mode: Mode, images: int, tokens: int, gates: int, experts: int, inputs: int, outputs: int) -> Cost:
    """Work of the forward pass.

    Args:
        images, tokens: x is (images, tokens, inputs).
        gates: mixtures: one per image, or 1 for the whole batch.
        experts: number T of task vectors.
    """
    size = inputs * outputs
    rows = images * tokens
    if mode == "weights":
        return Cost(2.0 * size * (gates * experts + rows), 4.0 * size * (experts + 2 * gates))
    return Cost(
        2.0 * size * rows * (1 + experts), 4.0 * (size * (1 + experts) + 2 * experts * rows * outputs)
    )


def cheaper(images: int, tokens: int, gates: int, experts: int, inputs: int, outputs: int) -> Mode:
    """The way that takes less time by `cost`."""
    times = {m: cost(m, images, tokens, gates, experts, inputs, outputs).time for m in ("weights", "outputs")}
    return "weights" if times["weights"] <= times["outputs"] else "outputs"


def mixed_linear(
    x: Tensor,
    gates: Tensor,
    weight: Tensor,
    bias: Tensor,
    weights: Tensor | Quantised,
    biases: Tensor | Quantised,
    mode: Mode | None = None,
) -> Tensor:
    """Apply a mixed linear layer, differentiably in x and the gates. What it mixes is never kept for the backward.

    Args:
        x: (n, tokens, inputs).
        gates: (n, T), or (1, T) for all images alike.
        weight, bias: (outputs, inputs) and (outputs,) of the base.
        weights, biases: (T, outputs * inputs) and (T, outputs): the task vectors, which may be codes.
        mode: how; None counts what is cheaper.

    Returns:
        (n, tokens, outputs).
    """
    n, tokens, inputs = x.shape
    mode = mode or cheaper(n, tokens, len(gates), gates.shape[1], inputs, len(weight))
    rows = x.to(weight.dtype)
    if len(gates) == 1:  # one mixture: all rows of the batch go through it together
        rows = rows.reshape(1, n * tokens, inputs)
    function = _MixedWeights if mode == "weights" else _MixedOutputs
    mixed: Tensor = function.apply(rows, gates.to(weight.dtype), weight, bias, weights, biases)
    return mixed.view(n, tokens, -1).to(x.dtype)


class _MixedWeights(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        x, gates, weight, bias, *ctx.vectors = inputs
        ctx.save_for_backward(x, gates, weight)
        weights, biases = ctx.vectors
        parts = []
        for part in _chunks(len(x), weight):
            mixed = _mixed(gates[part], weight, weights)
            parts.append(torch.bmm(x[part], mixed.transpose(1, 2)))
        return torch.cat(parts) + _mixed(gates, bias, biases).unsqueeze(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, gates, weight = ctx.saved_tensors
        weights, biases = ctx.vectors
        (g,) = gradients
        widened = _dense(weights).to(gates.dtype)
        dx, dgates = [], []
        for part in _chunks(len(x), weight):
            dx.append(torch.bmm(g[part], _mixed(gates[part], weight, weights)))
            outer = torch.bmm(g[part].transpose(1, 2), x[part])
            dgates.append(_contracted(outer.flatten(1), widened))
        return torch.cat(dx), torch.cat(dgates) + _contracted(g.sum(1), biases), None, None, None, None


def _chunks(count: int, weight: Tensor) -> Iterator[slice]:
    size = max(1, _CHUNK_BYTES // (weight.numel() * weight.element_size()))
    for first in range(0, count, size):
        yield slice(first, first + size)


def _dense(vectors: Tensor | Quantised) -> Tensor:
    return vectors if isinstance(vectors, Tensor) else vectors.dense()


def _mixed(gates: Tensor, weight: Tensor, weights: Tensor | Quantised) -> Tensor:
    with full_precision(gates):
        mixed = torch.addmm(weight.reshape(1, -1), gates, _dense(weights).to(gates.dtype))
    return mixed.view(len(gates), *weight.shape)


def _contracted(gradient: Tensor, vectors: Tensor | Quantised) -> Tensor:
    """The gates' gradient (n, T) of that of what was mixed (n, entries)."""
    with full_precision(gradient):
        widened = wide(_dense(vectors))
        return gradient.to(widened.dtype) @ widened.t()


class _MixedOutputs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        x, gates, weight, bias, *ctx.vectors = inputs
        ctx.save_for_backward(x, gates, weight)
        weights, biases = ctx.vectors
        y = x @ weight.t() + _mixed(gates, bias, biases).unsqueeze(1)
        for k, vector in enumerate(_dense(weights)):
            y += gates[:, k, None, None] * (x @ vector.to(x.dtype).view_as(weight).t())
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, gates, weight = ctx.saved_tensors
        weights, biases = ctx.vectors
        (g,) = gradients
        dx = g @ weight
        dgates = _contracted(g.sum(1), biases)
        for k, vector in enumerate(_dense(weights)):
            back = g @ vector.to(g.dtype).view_as(weight)
            dx += gates[:, k, None, None] * back
            dgates[:, k] += (back * x).sum((1, 2))
        return dx, dgates, None, None, None, None
