"""MaTS: RegMean's linear system by a few steps of conjugate gradients from a merge (arXiv 2312.04339, TMLR 2024)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from adamerge.merging.task_vectors import TaskVectors, TensorRule, observed
from adamerge.rules.regmean import normal_equations
from adamerge.rules.rule import Rule

# What is left of the residual's square where the system is solved, as a share of the right-hand side's.
_SOLVED = 1e-28


@dataclass(frozen=True)
class Mats(Rule):
    """The linear layer whose outputs are nearest to each expert's on that expert's own inputs, G_t their Gram matrix,

        W sum_t G_t = sum_t W_t G_t

    by conjugate gradients over all entries of W together, from task arithmetic and for so many steps: where inputs
    hardly vary, the start stays. Everything but the linear layers of the blocks (biases, norms, embeddings, the
    projection) is averaged. Source: r-three/mats. The authors' other systems, with Gram matrices of the outputs'
    gradients or diagonal Fisher information, are not here.

    Args:
        start: the coefficient of task arithmetic, where it starts.
        iterations: steps of conjugate gradients; the more, the nearer to RegMean with shrink=1.
        shrink: factor of a Gram matrix's entries beside the diagonal; 1 is the authors'.

    Raises:
        PoolError: without statistics of images.
    """

    needs = "images"
    gives = "delta"

    start: float = 0.3
    iterations: int = 100
    shrink: float = 1.0

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"iterations are steps of conjugate gradients, 1 or more, not {self.iterations}")
        if not 0.0 <= self.shrink <= 1.0:
            raise ValueError(f"shrink is a factor in [0, 1], not {self.shrink}")

    def prepare(self, vectors: TaskVectors) -> TensorRule:
        seen, names = observed(vectors), vectors.names

        def of_tensor(key: str, base: Tensor, stack: Tensor) -> Tensor:
            if seen.gram(names[0], key) is None:
                return stack.mean(dim=0, keepdim=True)
            total, pulled = normal_equations(key, stack, names, seen, self.shrink)
            start = self.start * stack.double().sum(dim=0)
            return conjugate_gradients(total, pulled, start, self.iterations).to(stack.dtype).unsqueeze(0)

        return of_tensor


def conjugate_gradients(matrix: Tensor, wanted: Tensor, start: Tensor, iterations: int) -> Tensor:
    """X, (rows, n), with X `matrix` near `wanted`, after so many steps from `start`, or fewer where it is solved.

    Args:
        matrix: (n, n), symmetric, with no negative eigenvalue.
    """
    found, residual = start.clone(), wanted - start @ matrix
    direction, square = residual.clone(), residual.square().sum()
    enough = _SOLVED * wanted.square().sum()
    for _ in range(iterations):
        if square <= enough:
            break
        answer = direction @ matrix
        step = square / (direction * answer).sum()
        found += step * direction
        residual -= step * answer
        before, square = square, residual.square().sum()
        direction = residual + square / before * direction
    return found
