"""An image encoder as Hugging Face's CLIPVisionModelWithProjection, ViTModel or Dinov2Model describes and names it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from adamerge.architecture import HF_DINOV2, HF_VIT, OPEN_CLIP, Names
from adamerge.checkpoints import hf_to_open_clip, open_clip_to_hf
from adamerge.checkpoints.vits import is_plain, open_clip_to_vit
from adamerge.errors import CheckpointError, PoolError
from adamerge.models.backbone import Backbone
from adamerge.models.clip import Model, image_size, model_config
from adamerge.models.registers import KEY as REGISTERS
from adamerge.models.registers import registers_of, without_registers
from adamerge.models.trunks import has_trunk

# What of open_clip's vision_cfg the configuration below says in other words, or what has no effect on a prediction.
_SAID = ("layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size", "patch_dropout")
PLAIN_SAID = (*_SAID, "no_ln_pre", "ls_init_value", "norm_kwargs", REGISTERS)


def vision_state(encoder: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under Hugging Face's names.

    Raises:
        PoolError: a tensor that has no name there.
    """
    if is_plain(encoder):
        try:
            return open_clip_to_vit(encoder, _plain_names(encoder))
        except CheckpointError as error:
            raise PoolError(_unlike(str(error))) from error
    renamed = open_clip_to_hf(encoder)
    if lost := [key for key in encoder if key not in hf_to_open_clip(renamed)]:
        raise PoolError(_unlike(f"it has no place for {lost[0]}"))
    return renamed


def vision_config(encoder: Mapping[str, Tensor], model: Model) -> dict[str, Any]:
    """The content of config.json for transformers 4 and 5.

    Raises:
        PoolError: open_clip's configuration asks for what Hugging Face's CLIP does not do.
    """
    if has_trunk(model_config(model)):
        raise PoolError(
            _unlike("it is one of timm's models below a CLIP of open_clip's (format=open_clip has it)")
        )
    vision, plain = model_config(model)["vision_cfg"], is_plain(encoder)
    refuse_other(vision, PLAIN_SAID if plain else _SAID, _unlike)
    backbone = Backbone.of(model)
    hidden = encoder[backbone.names.mlp_keys(0)["fc_weight"]].shape[0]
    eps = (vision.get("norm_kwargs") or {}).get("eps", 1e-5)
    kind: dict[str, Any]
    if not plain:
        kind = {"architectures": ["CLIPVisionModelWithProjection"], "model_type": "clip_vision_model"}
        kind |= {"intermediate_size": hidden, "projection_dim": backbone.embed_dim, "attention_dropout": 0.0}
    elif _plain_names(encoder) is HF_DINOV2:
        ratio, rest = divmod(hidden, backbone.width)
        if rest:
            raise PoolError(_unlike(f"its MLP is {hidden} wide, which is no multiple of {backbone.width}"))
        kind = {"architectures": ["Dinov2Model"], "model_type": "dinov2", "mlp_ratio": ratio}
        if number := registers_of(vision):
            kind |= {"architectures": ["Dinov2WithRegistersModel"], "model_type": "dinov2_with_registers"}
            kind["num_register_tokens"] = number
    elif registers_of(vision):
        raise PoolError(_unlike("it has register tokens without LayerScale (format=timm has them)"))
    else:
        kind = {"architectures": ["ViTModel"], "model_type": "vit", "intermediate_size": hidden}
    return {
        **kind,
        "hidden_act": backbone.activation,
        "hidden_size": backbone.width,
        "num_hidden_layers": backbone.blocks,
        "num_attention_heads": backbone.attention_heads,
        "num_channels": 3,
        "image_size": image_size(model),
        "patch_size": backbone.patch,
        "layer_norm_eps": eps,
        "torch_dtype": "float32",
    }


def _plain_names(encoder: Mapping[str, Tensor]) -> Names:
    """DINOv2's with LayerScale, ViT's without."""
    return HF_DINOV2 if any(key.endswith(OPEN_CLIP.scales) for key in encoder) else HF_VIT


def refuse_other(given: Mapping[str, Any], said: tuple[str, ...], unlike: Callable[[str], str]) -> None:
    """Nothing of open_clip's vision_cfg may differ from its defaults but what the configuration says.

    Args:
        unlike: makes the message of a reason.

    Raises:
        PoolError: something does.
    """
    from open_clip import CLIPVisionCfg

    vision, usual = asdict(CLIPVisionCfg(**without_registers(given))), asdict(CLIPVisionCfg())
    if other := [key for key in vision if key not in said and vision[key] != usual[key]]:
        raise PoolError(unlike(f"backbone.model.vision_cfg.{other[0]} is {vision[other[0]]!r}"))


def _unlike(reason: str) -> str:
    return (
        f"This encoder is none of Hugging Face's CLIPVisionModel, ViTModel or Dinov2Model: {reason}.\n"
        "  format=open_clip and format=safetensors write it as it is."
    )
