"""An image encoder as Hugging Face's CLIPVisionModelWithProjection describes and names it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from adamerge.checkpoints import hf_to_open_clip, open_clip_to_hf
from adamerge.errors import PoolError
from adamerge.models.backbone import Backbone
from adamerge.models.clip import Model, image_size, model_config

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
    _refuse_other(model_config(model)["vision_cfg"])
    backbone = Backbone.of(model)
    return {
        "architectures": ["CLIPVisionModelWithProjection"],
        "model_type": "clip_vision_model",
        "hidden_act": backbone.activation,
        "hidden_size": backbone.width,
        "intermediate_size": encoder[backbone.names.mlp_keys(0)["fc_weight"]].shape[0],
        "num_hidden_layers": backbone.blocks,
        "num_attention_heads": backbone.attention_heads,
        "num_channels": 3,
        "image_size": image_size(model),
        "patch_size": backbone.patch,
        "projection_dim": backbone.embed_dim,
        "layer_norm_eps": 1e-5,
        "attention_dropout": 0.0,
        "torch_dtype": "float32",
    }


def _refuse_other(given: Mapping[str, Any]) -> None:
    """Nothing of open_clip's vision_cfg may differ from its defaults but the sizes."""
    from open_clip import CLIPVisionCfg

    vision, usual = asdict(CLIPVisionCfg(**given)), asdict(CLIPVisionCfg())
    if other := [key for key in vision if key not in _SAID and vision[key] != usual[key]]:
        raise PoolError(_unlike(f"backbone.model.vision_cfg.{other[0]} is {vision[other[0]]!r}"))


def _unlike(reason: str) -> str:
    return (
        f"This encoder is none of Hugging Face's CLIPVisionModel: {reason}.\n"
        "  format=open_clip and format=safetensors write it as it is."
    )
