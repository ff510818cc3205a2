"""KnOTS: experts are aligned by one decomposition before TIES merges them (arXiv 2410.19735, ICLR 2025)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from adamerge.merging.matrices import Fused, as_matrices, is_matrix
from adamerge.merging.precision import wide
from adamerge.merging.spectra import triplets
from adamerge.merging.task_vectors import Seen, TaskVectors, TensorRule
from adamerge.rules.rule import Rule
from adamerge.rules.ties import Ties

_SUPPORT = 1e-5  # singular values up to it are none, as the authors have it


@dataclass(frozen=True)
class Knots(Rule):
    """The task vectors D_t of each matrix are decomposed together, which gives them coordinates in common:

        [D_1 .. D_T] = U diag(s) [V_1 .. V_T]           D_t = U C_t,  C_t = diag(s) V_t

    TIES trims the C_t of all matrices together, elects a sign per entry and drops what disagrees; U brings back what is
    left. It is meant for LoRA experts, whose D_t share few directions, and takes dense ones as well. A rule that is
    linear (task arithmetic) merges the C_t as it merges the D_t, and needs none of this. Tensors that are no matrix,
    which LoRA leaves alone, are trimmed along as they are. The vectors U are held for all matrices: as much again as
    the encoder, or for LoRA a share of it. Source: gstoica27/KnOTS.

    Args:
        top_k: share of entries kept per task, counted over the C_t of all matrices.
        scale: coefficient of a static merge; the authors' for eight LoRA experts of ViT-B/32 with the mean.
        aggregate: "sum" or "mean" of the entries that agree with the elected sign, or "max": the largest of them.
        fused: whether query, key and value projections are three matrices, "apart", as in the authors' files, or one,
            "together".

    The result stays one vector per task, so that coefficients can be learned on it.
    """

    ranks = True

    top_k: float = 0.2
    scale: float = 0.6
    aggregate: Literal["sum", "mean", "max"] = "mean"
    fused: Fused = "apart"

    def __post_init__(self) -> None:
        Ties(self.top_k)  # says what is wrong with it

    def coefficient(self, count: int) -> float:
        return self.scale

    def prepare(self, vectors: TaskVectors) -> TensorRule:
        aligned = Aligned(vectors, bases(vectors, self.fused), self.fused)
        ties = Ties(self.top_k, self.scale, self.aggregate, aligned.entries).prepare(aligned)

        def of_tensor(key: str, base: Tensor, stack: Tensor) -> Tensor | None:
            found = ties(key, base, aligned.coordinates(key, stack))
            return None if found is None else aligned.back(key, found)

        return of_tensor


def bases(vectors: TaskVectors, fused: Fused) -> dict[str, list[Tensor]]:
    """The left singular vectors (rows, k) of the task vectors side by side, for each matrix that a tensor holds."""
    found: dict[str, list[Tensor]] = {}
    for key in vectors.keys:
        if is_matrix(vectors.base(key)):
            found[key] = [_left(part) for part in as_matrices(key, wide(vectors.stack(key)), fused)]
    return found


def _left(matrices: Tensor) -> Tensor:
    """(T, rows, columns) -> (rows, k)"""
    left, values, _ = triplets(torch.cat(list(matrices), dim=1))
    return left[:, values > _SUPPORT]


@dataclass(frozen=True)
class Aligned(Seen):
    """The same task vectors, each matrix by its coordinates in the columns of its basis: k rows, and zeros below."""

    bases: Mapping[str, list[Tensor]]
    fused: Fused

    @property
    def entries(self) -> int:
        """How many entries of a task vector there are, without the zeros below."""
        return sum(self._entries(key, self.shapes[key]) for key in self.keys)

    def stack(self, key: str) -> Tensor:
        return self.coordinates(key, self.inner.stack(key))

    def coordinates(self, key: str, stack: Tensor) -> Tensor:
        """Of task vectors (T, *shape)."""
        return self._changed(key, stack, lambda basis, part: _below(basis.t() @ part, part.shape[1]))

    def back(self, key: str, stack: Tensor) -> Tensor:
        """From coordinates (T, *shape) to task vectors."""
        return self._changed(key, stack, lambda basis, part: basis @ part[:, : basis.shape[1]])

    def _changed(self, key: str, stack: Tensor, change: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        if key not in self.bases:
            return stack
        parts = zip(self.bases[key], as_matrices(key, stack, self.fused), strict=True)
        return torch.cat([change(basis.to(part), part) for basis, part in parts], dim=1)

    def _entries(self, key: str, shape: torch.Size) -> int:
        if key not in self.bases:
            return shape.numel()
        return sum(basis.shape[1] for basis in self.bases[key]) * shape[1]


def _below(coordinates: Tensor, rows: int) -> Tensor:
    """(T, k, columns) with zeros below -> (T, rows, columns)"""
    return torch.nn.functional.pad(coordinates, (0, 0, 0, rows - coordinates.shape[1]))
