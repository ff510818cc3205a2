"""What of an encoder counts as a matrix: the one answer for every rule and method that works on matrices.

A fused attention projection holds three. Whoever works on matrices takes `fused: apart | together` as an option, so
that the run's config says which it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from adamerge.architecture import family_of, fusing

Fused = Literal["apart", "together"]


def is_matrix(base: Tensor) -> bool:
    """Whether a tensor is a matrix as it stands: no gain, bias or token, and no convolution's kernel, which is one only
    where it is taken as (out, in h w)."""
    return base.ndim == 2


def is_block_matrix(key: str, base: Tensor) -> bool:
    """Whether a tensor is a weight matrix of a transformer block: attention's and the MLP's, no gains or biases."""
    return family_of(key) is not None and is_matrix(base)


def is_fused(key: str) -> bool:
    """Whether a tensor holds query, key and value projections, or two of them, one below the other."""
    return fusing(key) is not None


def as_matrices(key: str, stack: Tensor, fused: Fused = "apart") -> list[Tensor]:
    """A tensor's task vectors (T, *shape) as matrices (T, rows, columns).

    A convolution's kernel (out, in, h, w) is the matrix (out, in h w). The fused attention projection is three
    matrices, or two where a pooling has key and value alone ("apart"), or one ("together").

    Raises:
        ValueError: a tensor with less than two dimensions.
    """
    if stack.ndim < 3:
        raise ValueError(f"{key} {tuple(stack.shape[1:])} is no matrix")
    matrices, family = stack.flatten(2), fusing(key)
    if family is None or fused == "together":
        return [matrices]
    return list(matrices.chunk(len(family.parts(key)), dim=1))


def by_matrix(key: str, stack: Tensor, change: Callable[[Tensor], Tensor], fused: Fused = "apart") -> Tensor:
    """Change each matrix (T, rows, columns) -> (T or 1, rows, columns) and put the tensor together again."""
    parts = [change(part) for part in as_matrices(key, stack, fused)]
    return torch.cat(parts, dim=1).unflatten(2, stack.shape[2:])
