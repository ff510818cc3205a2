"""An image encoder as Hugging Face's CLIPVisionModelWithProjection describes and names it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from adamerge.checkpoints import guess_architecture, hf_to_open_clip, open_clip_to_hf
from adamerge.errors import PoolError
from adamerge.models.clip import Model, model_config

# What of open_clip's vision_cfg the configuration below says in other words, or what has no effect on a prediction.
_SAID = ("layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size", "patch_dropout")


def vision_state(encoder: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under Hugging Face's names.

    Raises:
        PoolError: a tensor that has no name there.
    """
    renamed = open_clip_to_hf(encoder)
    if lost := [key for key in encoder if key not in hf_to_open_clip(renamed)]:
        raise PoolError(_unlike(f"it has no place for {lost[0]}"))
    return renamed


def vision_config(encoder: Mapping[str, Tensor], model: Model) -> dict[str, Any]:
    """The content of config.json for transformers 4 and 5.

    Raises:
        PoolError: open_clip's configuration asks for what Hugging Face's CLIP does not do.
    """
    config = model_config(model)
    vision = _checked(config["vision_cfg"])
    shape = guess_architecture(encoder)
    return {
        "architectures": ["CLIPVisionModelWithProjection"],
        "model_type": "clip_vision_model",
        "hidden_act": "quick_gelu" if config.get("quick_gelu") else "gelu",
        "hidden_size": shape.width,
        "intermediate_size": encoder["visual.transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        "num_hidden_layers": shape.blocks,
        "num_attention_heads": shape.width // vision["head_width"],
        "num_channels": 3,
        "image_size": shape.image,
        "patch_size": shape.patch,
        "projection_dim": shape.embed_dim,
        "layer_norm_eps": 1e-5,
        "attention_dropout": 0.0,
        "torch_dtype": "float32",
    }


def _checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """open_clip's vision_cfg with its defaults; nothing may differ from them but the sizes."""
    from open_clip import CLIPVisionCfg

    vision, usual = asdict(CLIPVisionCfg(**given)), asdict(CLIPVisionCfg())
    if other := [key for key in vision if key not in _SAID and vision[key] != usual[key]]:
        raise PoolError(_unlike(f"backbone.model.vision_cfg.{other[0]} is {vision[other[0]]!r}"))
    return vision


def _unlike(reason: str) -> str:
    return (
        f"This encoder is none of Hugging Face's CLIPVisionModel: {reason}.\n"
        "  format=open_clip and format=safetensors write it as it is."
    )
