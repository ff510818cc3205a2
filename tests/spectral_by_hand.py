"""What tests of spectral rules share: merges in numpy, tensor by tensor, by other decompositions than ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from restating import tau
from torch import Tensor

from adamerge.merging import Head, Pool

Matrix = NDArray[np.float64]


def by_hand(
    pool: Pool, merged: Callable[[list[Matrix]], Matrix], scale: float, fused: str
) -> dict[str, Tensor]:
    """theta_0 + scale * merged(D_1 .. D_T) of each tensor of two dimensions, + scale * the mean of all others."""
    state = {}
    for key, base in pool.base.items():
        deltas = [tau(pool, task)[key].double().numpy() for task in pool.names] if key in pool.vectors else []
        if not deltas:
            state[key] = base
            continue
        if base.ndim != 2:
            change = sum(deltas) / len(deltas)
        elif "in_proj" in key and fused == "apart":
            parts = [np.split(delta, 3) for delta in deltas]
            change = np.concatenate([merged([part[i] for part in parts]) for i in range(3)])
        else:
            change = merged(deltas)
        state[key] = base.double() + scale * torch.from_numpy(np.asarray(change))
    return state


def leading(matrix: Matrix, count: int) -> tuple[Matrix, Matrix, Matrix]:
    """The leading singular triplets, from the eigenvectors of M^T M."""
    squares, vectors = np.linalg.eigh(matrix.T @ matrix)
    order = np.argsort(squares)[::-1][:count]
    values = np.sqrt(squares[order])
    return matrix @ vectors[:, order] / values, values, vectors[:, order].T


def orthonormal(matrix: Matrix) -> Matrix:
    """M (M^T M)^(-1/2), the polar factor of a matrix of full column rank."""
    squares, vectors = np.linalg.eigh(matrix.T @ matrix)
    inverse_root: Matrix = vectors @ np.diag(squares**-0.5) @ vectors.T
    return matrix @ inverse_root


def close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-6) -> None:
    """Factors from M^T M keep half of float64's digits."""
    assert set(found) == set(expected)
    for key, value in expected.items():
        torch.testing.assert_close(
            found[key].double(), value.double(), rtol=tolerance, atol=tolerance, msg=key
        )


def only(*matrices: Sequence[Sequence[float]], dtype: torch.dtype = torch.float64) -> Pool:
    """A pool of one matrix of zeros whose task vectors are these."""
    stack = torch.tensor(matrices, dtype=dtype)
    names = tuple(f"t{i}" for i in range(len(stack)))
    heads = {name: Head(torch.ones(2, 1)) for name in names}
    base = {"w": torch.zeros(stack.shape[1:], dtype=dtype)}
    return Pool(torch.nn.Identity(), base, {"w": stack.flatten(1)}, names, heads)


def changed(pool: Pool, row: int, by: Callable[[Tensor], Tensor]) -> Pool:
    """The pool with one task's vectors changed."""
    vectors: dict[str, Any] = {key: stack.clone() for key, stack in pool.vectors.items()}
    for stack in vectors.values():
        stack[row] = by(stack[row])
    return replace(pool, vectors=vectors)
