"""The positional embedding at another image size."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor, nn

from adamerge.architecture import OPEN_CLIP, architecture_of


def resized(state: Mapping[str, Tensor], encoder: nn.Module) -> dict[str, Tensor]:
    """An image encoder's tensors with its positions on the encoder's grid: bicubic resizing with antialias, open_clip's
    for its own vision transformers and timm's for trunks.

    The class token's position stays; a state on that grid already comes back as it is.
    """
    result = dict(state)
    names = architecture_of(encoder).names
    if names is OPEN_CLIP:
        from open_clip.model import resize_pos_embed

        resize_pos_embed(result, encoder)  # type: ignore[no-untyped-call]
    elif names.positions in result:
        result[names.positions] = _on_grid(result[names.positions], encoder.get_parameter(names.positions))
    return result


def _on_grid(positions: Tensor, wanted: Tensor) -> Tensor:
    """(1, prefix + grid, width) positions on the grid of `wanted`; both have as many in front of the grid."""
    from timm.layers import resample_abs_pos_embed

    if positions.shape == wanted.shape:
        return positions
    side = math.isqrt(wanted.shape[1])
    resampled: Tensor = resample_abs_pos_embed(
        positions, new_size=[side, side], num_prefix_tokens=wanted.shape[1] - side**2
    )
    return resampled
