"""In what precision task vectors are worked with."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(like: Tensor) -> torch.autocast:
    """Mixed precision is for the encoder's pass. A product with task vectors sums millions of entries into one number,
    of which a narrow type would keep two digits."""
    return torch.autocast(like.device.type, enabled=False)


def wide(tensor: Tensor) -> Tensor:
    """In float32 at least: for sums over many entries, and for decompositions."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
