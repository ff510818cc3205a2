"""Register tokens in open_clip's vision transformer: more rows between the class token and the patches.

They take no position and are not pooled; attention sees them (arXiv 2309.16588, "Vision transformers need registers").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from adamerge.architecture import OPEN_CLIP

# Their number in a vision_cfg of ours, and their tensor (number, width) in the encoder.
KEY = "register_tokens"
# What open_clip's transformer calls them within itself.
_CLASS_TOKEN, _NORM_BEFORE = (
    name.rpartition(".")[2] for name in (OPEN_CLIP.class_token, OPEN_CLIP.norm_before)
)


def registers_of(vision: Mapping[str, Any]) -> int:
    """The number of register tokens of a vision_cfg; open_clip's own have none."""
    return int(vision.get(KEY) or 0)


def without_registers(vision: Mapping[str, Any]) -> dict[str, Any]:
    """The same vision_cfg as open_clip knows it."""
    return {key: value for key, value in vision.items() if key != KEY}


def with_registers(visual: Any, number: int) -> nn.Module:
    """open_clip's vision transformer with `number` register tokens, zeros until weights are loaded."""
    if number:
        width = getattr(visual, _CLASS_TOKEN).shape[-1]
        visual.register_parameter(KEY, nn.Parameter(torch.zeros(number, width)))
        visual.__class__ = _with_registers(type(visual))
    result: nn.Module = visual
    return result


def _with_registers(plain: type[Any]) -> type[Any]:
    class WithRegisters(plain):  # type: ignore[misc]
        """`plain` with the tensor `register_tokens` (number, width) behind the class token."""

        def _embeds(self, x: Tensor) -> Tensor:
            x = super()._embeds(x)
            registers = getattr(self, _NORM_BEFORE)(self.register_tokens.to(x.dtype))
            registers = registers.expand(len(x), -1, -1)
            return torch.cat([x[:, :1], registers, x[:, 1:]], dim=1)

        def _global_pool(self, x: Tensor) -> tuple[Tensor, Tensor]:
            patches = torch.cat([x[:, :1], x[:, 1 + len(self.register_tokens) :]], dim=1)
            pooled, tokens = super()._global_pool(patches)
            return pooled, tokens

    return WithRegisters
