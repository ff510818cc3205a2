"""AdaRank: coefficients, and which singular values of each task vector are merged (arXiv 2503.22178, ICLR 2026)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from adamerge.merging import LearnedCoefficients, Pool, learned, merge_tensor
from adamerge.merging.compact import LowRank, as_vectors, forms_of
from adamerge.merging.matrices import Fused, as_matrices, is_block_matrix
from adamerge.merging.precision import wide
from adamerge.merging.singular import decomposed, merge_triplets
from adamerge.methods.with_coefficients import WithCoefficients

_START, _TEMPERATURE = 0.1, 10.0


class AdaRank(WithCoefficients):
    """theta = theta_0 + sum_t lambda_t sum_i b_{t,i} s_{t,i} u_{t,i} v_{t,i}^T of each weight matrix of the blocks, and
    theta_0 + sum_t lambda_t tau_t of every other tensor. lambda has a number per tensor and task.

    b = 1 where sigmoid(m / 10) > 1/2, else 0: a singular value is merged whole or not at all. The gradient takes
    sigmoid(m / 10) in its place (straight through), so that a value that is left out has one as well. As in the
    authors' code. With m at 0.1 and Adam's steps of 1e-3 no value changes sides in the first hundred steps,
    and a short schedule at that rate learns the coefficients alone.

    The factors take the place of the task vectors: about twice their memory for a square matrix.

    Args:
        pool: after any rule that keeps one encoder. About the experts' average (origin=average) it is AdaRank on CART.
        start: start value of every coefficient; None takes the rule's own.
        ratio: share of each matrix's singular values, the largest, that are merged at the start.
        fused: whether query, key and value projections are one matrix, "together", as for the authors, or three,
            "apart".

    Raises:
        PoolError: the rule gives one encoder per task.
        ValueError: a ratio outside of 0 to 1.
    """

    merging: LearnedCoefficients

    def __init__(
        self, pool: Pool, start: float | Tensor | None = 0.3, ratio: float = 1.0, fused: Fused = "together"
    ) -> None:
        if not 0.0 <= ratio <= 1.0:
            raise ValueError(f"ratio is a share of the singular values, between 0 and 1, not {ratio}")
        super().__init__(pool, partial(learned, start=start, clamp=False))
        self.masked = tuple(key for key in pool.keys if is_block_matrix(key, pool.base[key]))
        factors = {key: _triplets(pool, key, fused) for key in self.masked}
        self.pool = replace(pool, vectors=as_vectors({**forms_of(pool.vectors), **factors}))
        self.logits_of_masks = nn.ParameterList(_at_start(own, ratio) for own in factors.values())

    def masks(self, key: str) -> Tensor:
        """(matrices, T, rank) ones and zeros of a matrix, with the gradient of sigmoid(m / 10)."""
        soft = (self.logits_of_masks[self.masked.index(key)] / _TEMPERATURE).sigmoid()
        return (soft > 0.5).to(soft) + (soft - soft.detach())

    def merge(self, task: str | None = None) -> dict[str, Tensor]:
        table, forms, merged = self.table(), forms_of(self.pool.vectors), {}
        for layer in self.layers:
            base, form, rows = self.pool.base[layer.key], forms[layer.key], table[layer.rows]
            if layer.key in self.masked:
                assert isinstance(form, LowRank), "a masked matrix is kept as its triplets"
                weights = rows.unsqueeze(2) * self.masks(layer.key)
                merged[layer.key] = merge_triplets(weights, base, form)
            else:
                merged[layer.key] = merge_tensor(rows, base, self.pool.vectors[layer.key])
        return merged


def _triplets(pool: Pool, key: str, fused: Fused) -> LowRank:
    """All singular triplets of a matrix."""
    vectors = pool.vectors[key]
    stack = wide(vectors).view(-1, *pool.base[key].shape)
    return decomposed(as_matrices(key, stack, fused)).to(vectors.dtype)


def _at_start(form: LowRank, ratio: float) -> nn.Parameter:
    """m: the largest values in, the others out."""
    matrices, tasks, rank, _ = form.right.shape
    logits = torch.full((matrices, tasks, rank), _START, device=form.right.device)
    logits[..., int(ratio * rank) :] = -_START
    return nn.Parameter(logits)
