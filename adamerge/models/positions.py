"""The positional embedding at another image size."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


def resized(state: Mapping[str, Tensor], encoder: nn.Module) -> dict[str, Tensor]:
    """An image encoder's tensors with its positions on the encoder's grid: open_clip's bicubic resizing with antialias.

    The class token's position stays; a state on that grid already comes back as it is.
    """
    from open_clip.model import resize_pos_embed

    result = dict(state)
    resize_pos_embed(result, encoder)  # type: ignore[no-untyped-call]
    return result
