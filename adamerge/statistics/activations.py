"""Activations: how strongly each input of each linear layer of the transformer blocks speaks, over some images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from adamerge.statistics.entering import Images, mean_over_tokens


def collect_activations(
    encoder: nn.Module, state: Mapping[str, Tensor], images: Images, **passes: Any
) -> dict[str, Tensor]:
    """(inputs,) mean over all tokens of |x| by the key of the weight that x enters, as `mean_over_tokens`.

    Args:
        passes: device, batch_size and progress.
    """
    return mean_over_tokens(encoder, state, images, lambda rows: rows.abs().sum(dim=0), **passes)
