"""The experts' shares of a merge, by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from adamerge.errors import PoolError


def shares_of(names: Sequence[str], given: Mapping[str, float] | None) -> Tensor:
    """(T,) float64 shares in the order of the experts; equal ones where none are given.

    Raises:
        PoolError: shares of other names than the experts'.
    """
    shares = dict.fromkeys(names, 1.0 / len(names)) if given is None else dict(given)
    if set(shares) != set(names):
        raise PoolError(
            f"shares: they are of {', '.join(shares) or 'none'}, and the experts are {', '.join(names)}.\n"
            "  Give each expert a share, 0 for one to leave out."
        )
    return torch.tensor([shares[name] for name in names], dtype=torch.float64)
