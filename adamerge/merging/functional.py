"""The functional merge: theta[l] = theta0[l] + sum_k lambda[l, k] * tau[k, l].

It is exact and lean because the merge is linear in lambda, so that

    dL/dlambda[l, k] = < dL/dtheta[l], tau[k, l] >.

A round therefore merges once, runs any number of batches through detached tensors that share the merged storage,
lets their gradients add up, and contracts the sum with the task vectors at the end. The result is that of
back-propagating the summed loss through the merge, without keeping a graph per task.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from adamerge.merging.compact import forms_of, opened
from adamerge.merging.layers import Layer
from adamerge.merging.precision import full_precision
from adamerge.merging.quantised import Quantised

# Task vectors kept in a narrow type, or as codes, are widened piece by piece: no second copy of a stack ever exists.
_PIECE = 1 << 18


class _Merge(torch.autograd.Function):
    """One tensor: base + rows @ vectors. Saves nothing but the task vectors, which exist anyway."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, base: Tensor, vectors: Tensor | Quantised) -> Tensor:
        ctx.codes = None if isinstance(vectors, Tensor) else vectors
        ctx.save_for_backward(*([vectors] if isinstance(vectors, Tensor) else []))
        ctx.rows_like = (rows.shape, rows.dtype)
        flat = base.reshape(-1)
        out = torch.empty_like(flat)
        # A number expanded to all tasks would take another kernel, whose last bit differs.
        rows = rows.contiguous()
        with full_precision(flat):
            for row, piece in _pieces(len(rows), vectors, flat.dtype):
                widened = _columns(vectors, piece).to(flat.dtype)
                torch.addmv(flat[piece], widened.t(), rows[row].to(flat.dtype), out=out[piece])
        return out.view(base.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        vectors = ctx.saved_tensors[0] if ctx.codes is None else ctx.codes
        shape, dtype = ctx.rows_like
        flat = gradients[0].reshape(-1)
        contracted = flat.new_zeros(shape)
        with full_precision(flat):
            for row, piece in _pieces(shape[0], vectors, flat.dtype):
                contracted[row] += _columns(vectors, piece).to(flat.dtype) @ flat[piece]
        return contracted.to(dtype), None, None


def _columns(vectors: Tensor | Quantised, piece: slice) -> Tensor:
    return vectors[:, piece] if isinstance(vectors, Tensor) else vectors.columns(piece)


def _pieces(rows: int, vectors: Tensor | Quantised, dtype: torch.dtype) -> Iterator[tuple[int, slice]]:
    """(row of the coefficients, columns it applies to): one piece per row, or more where widening is needed."""
    length = vectors.shape[1] // rows
    size = max(length if vectors.dtype == dtype else _PIECE, 1)
    for row in range(rows):
        for first in range(row * length, (row + 1) * length, size):
            yield row, slice(first, min(first + size, (row + 1) * length))


def merge_tensor(rows: Tensor, base: Tensor, vectors: Tensor | Quantised) -> Tensor:
    """Merge one tensor, differentiably in the coefficients.

    Args:
        rows: (parts, T) coefficients; the tensor is cut into `parts` equal parts along its first dimension.
        base: the pre-trained tensor, any shape.
        vectors: (T, base.numel()) task vectors: float32, a narrower type, or codes.
    """
    merged: Tensor = _Merge.apply(rows, base, vectors)  # type: ignore[no-untyped-call]
    return merged


def merge_tensors(
    table: Tensor, base: Mapping[str, Tensor], vectors: Mapping[str, Tensor], layers: Iterable[Layer]
) -> dict[str, Tensor]:
    """Merge every layer with its rows of the coefficient table (rows, T). Returns the merged tensors by key."""
    forms = forms_of(vectors)
    return {
        layer.key: merge_tensor(table[layer.rows], base[layer.key], opened(forms[layer.key]))
        for layer in layers
    }


class Merged:
    """An encoder with merged parameters, used for one round.

    `merged` may carry a graph back to whatever is trained (coefficients, masks). Batches run through leaves that
    share its storage (`leaves`, by key); `contract_gradient()` hands the accumulated gradient back to the graph, once.
    """

    def __init__(self, encoder: nn.Module, fixed: Mapping[str, Tensor], merged: Mapping[str, Tensor]) -> None:
        self._encoder = encoder
        self._merged = merged
        self.leaves = {
            key: value.detach().requires_grad_(value.requires_grad) for key, value in merged.items()
        }
        self.parameters = {**fixed, **self.leaves}

    def __call__(self, images: Tensor) -> Tensor:
        """Features (n, d) of images (n, 3, H, W)."""
        features: Tensor = functional_call(self._encoder, self.parameters, (images,))
        return features

    def contract_gradient(self) -> None:
        """Contract the accumulated dL/dtheta with the task vectors into the gradient of the coefficients."""
        reached = [key for key, leaf in self.leaves.items() if leaf.grad is not None]
        if reached:
            torch.autograd.backward(
                [self._merged[key] for key in reached], [self.leaves[key].grad for key in reached]
            )
        for key in reached:
            self.leaves[key].grad = None
