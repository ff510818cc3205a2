"""Gram matrices: the second moments of what enters each linear layer of the transformer blocks, over some images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from adamerge.statistics.entering import Images, mean_over_tokens


def collect_grams(
    encoder: nn.Module, state: Mapping[str, Tensor], images: Images, **passes: Any
) -> dict[str, Tensor]:
    """(inputs, inputs) mean over all tokens of x x^T by the key of the weight that x enters, as `mean_over_tokens`.

    Args:
        passes: device, batch_size and progress.
    """
    return mean_over_tokens(encoder, state, images, lambda rows: rows.t() @ rows, **passes)
