"""OptMerge: WUDI towards task vectors of low rank (WalkerWorldPeace/MLLMerging, "wudi v2")."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adamerge.merging.spectra import triplets
from adamerge.rules.on_matrices import OnMatrices
from adamerge.rules.wudi import descended, interference


@dataclass(frozen=True)
class OptMerge(OnMatrices):
    """Of each matrix with rank r, with q = int(r / T) and [.]_q the q leading singular triplets, from X = sum_t D_t on:

        target_t = [D_t - mean]_q + mean       L_t = diag(s_1 .. s_q) V_q^T of D_t
        minimise  sum_t || (X - target_t) L_t^T ||^2 / || D_t ||^2      by Adam

    This is the authors' variant for full fine-tuning. All other tensors are averaged.

    Args:
        steps, lr: Adam's. It moves an entry by up to steps x lr.
        scale: what the merge is multiplied with. The authors' scripts have 0.1 to 0.3 for language models; for CLIP
            none is published, and 1 is WUDI's.
        fused: whether query, key and value projections are one matrix, "together", as they stand in open_clip's files,
            or three, "apart".
    """

    gives = "delta"

    steps: int = 300
    lr: float = 1.0e-5

    def of_matrices(self, matrices: Tensor) -> Tensor:
        each = min(matrices.shape[1:]) // len(matrices)
        start, mean = matrices.sum(dim=0), matrices.mean(dim=0)
        targets = torch.stack([triplets(matrix - mean, each).dense() + mean for matrix in matrices])
        rows = []
        for matrix in matrices:
            own = triplets(matrix, each)
            rows.append(own.values.unsqueeze(1) * own.right)
        gram, slope = interference(start, targets, torch.stack(rows), matrices.flatten(1).norm(dim=1))
        moved = descended(gram.to(start.dtype), slope.to(start.dtype), self.steps, self.lr)
        return (start + moved).unsqueeze(0)
