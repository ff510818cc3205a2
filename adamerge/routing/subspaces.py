"""How far a vector lies from a subspace: what SiM and MASS both route by."""

from __future__ import annotations

import torch
from torch import Tensor

from adamerge.merging.precision import full_precision, wide


def residuals(vectors: Tensor, bases: Tensor, means: Tensor | None = None) -> Tensor:
    """(n, T) lengths of what is left of vectors (n, d), less each task's mean (T, d), beside each task's subspace.

    Args:
        bases: (T, r, d), the rows of each orthonormal; rows of zeros where a subspace has fewer dimensions.
    """
    with full_precision(vectors):
        x = wide(vectors).unsqueeze(0)
        x = x if means is None else x - wide(means).unsqueeze(1)
        inside = (x @ wide(bases).mT) @ wide(bases)
        return torch.linalg.vector_norm(x - inside, dim=-1).t()
