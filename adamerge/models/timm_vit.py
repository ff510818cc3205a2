"""`timm:<name>`: a plain vision transformer of timm's as open_clip's configuration, and the rules of its pictures."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from adamerge.errors import ConfigError
from adamerge.models.registers import KEY as REGISTERS

PREFIX = "timm:"


@functools.lru_cache
def _built(name: str) -> nn.Module:
    """The model without storage.

    Raises:
        ConfigError: timm knows no such model, or it is no plain vision transformer.
    """
    import timm
    from timm.models.vision_transformer import VisionTransformer

    try:
        with torch.device("meta"):
            model = timm.create_model(name.removeprefix(PREFIX), pretrained=False)
    except RuntimeError as error:
        raise ConfigError(f"backbone.model: timm knows no model '{name.removeprefix(PREFIX)}'.") from error
    if not isinstance(model, VisionTransformer):
        raise ConfigError(_unlike(name, f"it is a {type(model).__name__}"))
    model_: Any = model
    block = model_.blocks[0]
    odd = {
        "it pools its tokens otherwise than by the class token": model_.global_pool != "token",
        "its queries and keys are normalised": not isinstance(block.attn.q_norm, nn.Identity),
        "its attention has no bias": block.attn.qkv.bias is None,
        "its MLP is no pair of linears with GELU": not _is_plain(block.mlp),
        "its last norm is another": not isinstance(model_.norm, nn.LayerNorm),
    }
    if reasons := [reason for reason, is_so in odd.items() if is_so]:
        raise ConfigError(_unlike(name, reasons[0]))
    return model


def _is_plain(mlp: Any) -> bool:
    return type(mlp).__name__ == "Mlp" and isinstance(mlp.act, nn.GELU) and mlp.act.approximate == "none"


def _unlike(name: str, reason: str) -> str:
    return (
        f"backbone.model: '{name}' is not one of timm's plain vision transformers: {reason}.\n"
        "  Such as timm:vit_base_patch16_224 or timm:vit_small_patch14_dinov2 are."
    )


def timm_config(name: str) -> dict[str, Any]:
    """open_clip's configuration that computes the same; raises as `_built`."""
    model: Any = _built(name)
    block = model.blocks[0]
    side, patch = model.patch_embed.img_size[0], model.patch_embed.patch_size[0]
    vision = {
        "image_size": side,
        "patch_size": patch,
        "layers": len(model.blocks),
        "width": model.embed_dim,
        "head_width": model.embed_dim // block.attn.num_heads,
        "mlp_ratio": block.mlp.fc1.out_features / model.embed_dim,
        "no_ln_pre": isinstance(model.norm_pre, nn.Identity),
        "norm_kwargs": {"eps": block.norm1.eps},
    }
    if model.num_reg_tokens:
        vision[REGISTERS] = model.num_reg_tokens
    if hasattr(block.ls1, "gamma"):
        vision["ls_init_value"] = 1e-5  # a start; the weights bring their own
    return {"embed_dim": model.embed_dim, "quick_gelu": False, "vision_cfg": vision}


def timm_pictures(name: str) -> Mapping[str, Any]:
    """mean, std, resize, to and interpolation of its evaluation, as timm's default configuration states them."""
    model: Any = _built(name)
    stated = model.default_cfg
    side = model.patch_embed.img_size[0]
    share = float(stated.get("crop_pct") or 1.0)
    squash = stated.get("crop_mode") == "squash"
    return {
        "mean": tuple(stated["mean"]),
        "std": tuple(stated["std"]),
        "resize": "squash" if squash else "shortest",
        "to": None if share == 1.0 else math.floor(side / share),
        "interpolation": stated.get("interpolation", "bicubic"),
    }
