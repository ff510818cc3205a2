"""timm's models as the image encoder of a CLIP of open_clip's, its `visual.trunk`: SigLIP, PE, EVA02, ConvNeXt.

open_clip builds them; here stands what else has to be known of each kind. Another kind is another entry of `_KINDS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from adamerge.architecture import CONV_TRUNK, EVA_TRUNK, TIMM_TRUNK
from adamerge.errors import ConfigError

Config = Mapping[str, Any]


def has_trunk(config: Config) -> bool:
    """Whether the image encoder of an open_clip configuration is one of timm's."""
    return bool(config["vision_cfg"].get("timm_model_name"))


def sized(visual: nn.Module, config: Config) -> nn.Module:
    """The encoder for pictures of the configuration's size, where its trunk was made for another."""
    trunk: Any = getattr(visual, "trunk", None)
    side = config["vision_cfg"].get("image_size")
    own = getattr(getattr(trunk, "patch_embed", None), "img_size", None)
    if trunk is not None and side is not None and own is not None and tuple(own) != (side_of(side),) * 2:
        visual.set_input_size(side_of(side))  # type: ignore[operator]
    return visual


def fixed_buffers(visual: nn.Module) -> list[tuple[nn.Module, str]]:
    """The buffers that no state dict has, such as the angles of rotary positions: (module, name)."""
    return [
        (m, name) for m in visual.modules() for name in m._buffers if name in m._non_persistent_buffers_set
    ]


def with_fixed_buffers(visual: nn.Module) -> nn.Module:
    """An encoder without storage, but for the buffers that no state dict has: they are computed here, on the CPU."""
    modules = dict.fromkeys(module for module, _ in fixed_buffers(visual))
    for module, name in fixed_buffers(visual):
        if (value := module._buffers[name]) is not None:
            module._buffers[name] = torch.empty_like(value, device="cpu")
    for module in modules:
        module.init_non_persistent_buffers()  # type: ignore[operator]
    return visual


def trunk_sizes(config: Config, build: Callable[[Config], nn.Module]) -> dict[str, Any]:
    """What `Architecture` says of a trunk but for its features' width.

    Args:
        build: makes the encoder of an open_clip configuration.

    Raises:
        ConfigError: timm knows no such model, or it is of a kind that is not known here.
    """
    vision_only = {key: config[key] for key in ("embed_dim", "vision_cfg")}
    return dict(_sizes(json.dumps(vision_only, sort_keys=True, default=list), build))


@lru_cache
def _sizes(text: str, build: Callable[[Config], nn.Module]) -> dict[str, Any]:
    config = json.loads(text)
    name = config["vision_cfg"]["timm_model_name"]
    try:
        with torch.device("meta"):
            visual: Any = build(config)
    except RuntimeError as error:
        if "Unknown model" not in str(error):
            raise
        raise ConfigError(
            f"backbone.model: timm knows no model '{name}' (vision_cfg.timm_model_name)."
        ) from error
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in visual.modules()):
        raise ConfigError(f"backbone.model: timm's '{name}' has BatchNorm.\n  {NO_BATCHNORM}")
    kind = _KINDS.get(type(visual.trunk).__name__)
    if kind is None or not _starts_with_patches(visual.trunk):
        what = type(visual.trunk).__name__ + ("" if kind is None else " behind a stem of its own")
        raise ConfigError(
            f"backbone.model: timm's '{name}' is a {what}; of timm's models below a CLIP of "
            f"open_clip's these kinds are known: {', '.join(_KINDS)}."
        )
    return kind(visual.trunk)


NO_BATCHNORM = (
    "Its running means and variances belong to one model's activations: averaged, they are those of none, and they are "
    "not re-estimated here yet. Choose an encoder with layer norms: a vision transformer, SigLIP, PE, EVA02, ConvNeXt."
)


def _vision_transformer(trunk: Any) -> dict[str, Any]:
    attention, mlp = trunk.blocks[0].attn, trunk.blocks[0].mlp
    names = TIMM_TRUNK
    if getattr(attention, "qkv", None) is None:
        names = replace(names, fused=EVA_TRUNK.fused, apart=EVA_TRUNK.apart)
    if not _is_pair(mlp):
        names = replace(names, mlp_in="", activation="", mlp_out="")
    return {
        "names": names,
        "width": trunk.embed_dim,
        "tokens": trunk.patch_embed.num_patches + trunk.num_prefix_tokens,
        "blocks": len(trunk.blocks),
        "attention_heads": attention.num_heads,
        "patch": side_of(trunk.patch_embed.patch_size),
        "activation": "gelu",
        "rotary": getattr(trunk, "rope", None) is not None,
    }


def _conv(trunk: Any) -> dict[str, Any]:
    return {
        "names": CONV_TRUNK,
        "width": trunk.num_features,
        "tokens": 0,
        "blocks": 0,
        "attention_heads": 0,
        "patch": side_of(trunk.stem[0].kernel_size),
        "activation": "gelu",
    }


# timm's classes. What has no transformer blocks says so by their number.
_KINDS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "VisionTransformer": _vision_transformer,
    "Eva": _vision_transformer,
    "ConvNeXt": _conv,
}


def _starts_with_patches(trunk: Any) -> bool:
    """Whether its first layer is one convolution that cuts the picture into patches."""
    first = getattr(getattr(trunk, "patch_embed", None), "proj", None) or getattr(trunk, "stem", [None])[0]
    return isinstance(first, nn.Conv2d)


def _is_pair(mlp: Any) -> bool:
    """Whether an MLP is two linears with an activation between them."""
    linears = (getattr(mlp, "fc1", None), getattr(mlp, "fc2", None))
    plain = type(mlp).__name__ == "Mlp" and isinstance(mlp.norm, nn.Identity)
    return plain and all(isinstance(linear, nn.Linear) and linear.bias is not None for linear in linears)


def side_of(size: Any) -> int:
    """A side length that open_clip's and timm's configurations give as a number or for both directions."""
    return int(size if isinstance(size, int) else size[0])
