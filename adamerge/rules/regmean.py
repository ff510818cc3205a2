"""RegMean: linear layers merged by least squares on what enters them (arXiv 2212.09849, ICLR 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adamerge.errors import PoolError
from adamerge.merging.task_vectors import Statistics, TaskVectors, TensorRule, observed
from adamerge.rules.rule import Rule

_RIDGE = 1e-6  # of the mean diagonal, where the sum of the Gram matrices has no inverse


@dataclass(frozen=True)
class RegMean(Rule):
    """The linear layer whose outputs are nearest to each expert's on that expert's own inputs, G_t their Gram matrix:

        W = (sum_t W_t G_t) (sum_t G_t)^-1      that is, the base's plus (sum_t tau_t G_t) (sum_t G_t)^-1

    G_t is the mean over all tokens of x x^T, its entries beside the diagonal times `shrink`. Query, key and value share
    theirs. Everything but the linear layers of the blocks (biases, norms, embeddings, the projection) is averaged.

    Args:
        shrink: factor of the entries beside the diagonal. 0.95 is FusionBench's for CLIP; the authors take 0.9 for
            language models and 1 in their example (bloomberg/dataless-model-merging).

    Raises:
        PoolError: without statistics of images.
    """

    needs = "images"
    gives = "delta"
    linear = True

    shrink: float = 0.95

    def __post_init__(self) -> None:
        if not 0.0 <= self.shrink <= 1.0:
            raise ValueError(f"shrink is a factor in [0, 1], not {self.shrink}")

    def prepare(self, vectors: TaskVectors) -> TensorRule:
        seen, names = observed(vectors), vectors.names

        def of_tensor(key: str, base: Tensor, stack: Tensor) -> Tensor:
            if seen.gram(names[0], key) is None:
                return stack.mean(dim=0, keepdim=True)
            total, pulled = normal_equations(key, stack, names, seen, self.shrink)
            return torch.cholesky_solve(pulled.t(), _factor(total)).t().to(stack.dtype).unsqueeze(0)

        return of_tensor


def normal_equations(
    key: str, stack: Tensor, names: tuple[str, ...], seen: Statistics, shrink: float
) -> tuple[Tensor, Tensor]:
    """sum_t G_t (inputs, inputs) and sum_t tau_t G_t (outputs, inputs), float64, of task vectors (T, outputs, inputs);
    one Gram matrix at a time.

    Args:
        shrink: factor of the entries of G_t beside the diagonal.

    Raises:
        PoolError: statistics of another shape, or of some experts only.
    """
    inputs = stack.shape[2]
    total = torch.zeros(inputs, inputs, dtype=torch.float64, device=stack.device)
    pulled = torch.zeros(stack.shape[1], inputs, dtype=torch.float64, device=stack.device)
    for name, vector in zip(names, stack, strict=True):
        gram = seen.gram(name, key)
        if gram is None or gram.shape != total.shape:
            raise PoolError(f"The statistics of {name} do not fit {key} {tuple(vector.shape)}.")
        gram = _shrunk(gram.to(stack.device, stack.dtype), shrink)
        total += gram
        pulled += vector @ gram
    return total, pulled


def _shrunk(gram: Tensor, factor: float) -> Tensor:
    """The entries beside the diagonal times `factor`."""
    return torch.lerp(gram.diag().diag(), gram, factor)


def _factor(total: Tensor) -> Tensor:
    """The Cholesky factor, with the least ridge that gives one where an input is always zero."""
    factor, failed = torch.linalg.cholesky_ex(total)
    if not failed:
        return factor
    ridge = _RIDGE * total.diagonal().mean()
    return torch.linalg.cholesky(
        total + ridge * torch.eye(len(total), dtype=total.dtype, device=total.device)
    )
