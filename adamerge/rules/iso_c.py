"""Iso-C: the sum of the task vectors with all its directions equally strong (arXiv 2502.04959, ICML 2025)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from adamerge.merging.spectra import triplets
from adamerge.rules.on_matrices import OnMatrices


@dataclass(frozen=True)
class IsoC(OnMatrices):
    """Of each matrix the sum over the tasks, its singular values replaced by their mean:

        sum_t D_t = U diag(s) V^T        Delta = scale * mean(s) U V^T

    so that the nuclear norm stays. Of all other tensors it is scale * the mean over the tasks, not the sum
    (danielm1405/iso-merging). A sum of less than full rank (LoRA experts) has its mean over the directions that it has;
    the authors' code counts them all, and fills up those that are missing with whatever the decomposition gives.

    Args:
        scale: the authors choose it on labels, in steps of 0.1 up to 3: for 8, 14 and 20 tasks 1.3, 1.0, 0.9 with
            ViT-B/32, 1.4, 1.0, 0.8 with B/16, 1.5, 1.3, 1.0 with L/14.
        fused: whether query, key and value projections are one matrix, "together", as for the authors, or three,
            "apart".
    """

    gives = "delta"

    scale: float = 1.3

    def of_matrices(self, matrices: Tensor) -> Tensor:
        found = triplets(matrices.sum(dim=0)).present()
        mean = found.values.sum() / (found.values > 0).sum().clamp(min=1)
        return (mean * found.left @ found.right).unsqueeze(0)
