"""A plain vision transformer as a folder of timm's: `timm.create_model("local-dir:<folder>", pretrained=True)`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from adamerge.architecture import OPEN_CLIP, TIMM_VIT
from adamerge.checkpoints import save_tensors
from adamerge.checkpoints.vits import open_clip_to_vit
from adamerge.errors import CheckpointError, PoolError
from adamerge.export.hf import PLAIN_SAID, refuse_other
from adamerge.files import atomic_write_text
from adamerge.models.backbone import Backbone
from adamerge.models.clip import Model, model_config
from adamerge.models.pictures import PictureRules
from adamerge.models.timm_vit import PREFIX

_GENERIC = "vit_base_patch16_224"  # any of its models becomes this one by its arguments
_EPS = 1e-6  # of the norms of timm's vision transformers, which its files cannot say otherwise


def write_timm(folder: Path, encoder: Mapping[str, Tensor], model: Model, pictures: PictureRules) -> None:
    """Write the encoder under timm's names with the arguments that build it and the rules of its pictures.

    Raises:
        PoolError: an architecture that timm's plain vision transformers do not have.
    """
    if OPEN_CLIP.patches not in encoder:
        raise PoolError(
            _unlike("it is a trunk of timm's below a CLIP of open_clip's, whose format is open_clip")
        )
    try:
        tensors = open_clip_to_vit(encoder, TIMM_VIT, class_position=OPEN_CLIP.registers not in encoder)
    except CheckpointError as error:
        raise PoolError(_unlike(str(error))) from error
    config = _config(encoder, model, pictures)
    save_tensors(folder / "model.safetensors", tensors, {"format": "pt"})
    atomic_write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")


def _config(encoder: Mapping[str, Tensor], model: Model, pictures: PictureRules) -> dict[str, Any]:
    vision = model_config(model)["vision_cfg"]
    refuse_other(vision, PLAIN_SAID, _unlike)
    eps = (vision.get("norm_kwargs") or {}).get("eps", 1e-5)
    if eps != _EPS:
        raise PoolError(_unlike(f"its norms have eps {eps}, and those of timm's have {_EPS}"))
    named = isinstance(model, str) and model.startswith(PREFIX)
    return {
        "architecture": model.removeprefix(PREFIX).partition(".")[0] if named else _GENERIC,  # type: ignore[union-attr]
        "num_classes": 0,
        "num_features": Backbone.of(model).width,
        "global_pool": "token",
        "model_args": _arguments(encoder, model),
        "pretrained_cfg": _pictures(pictures),
    }


def _arguments(encoder: Mapping[str, Tensor], model: Model) -> dict[str, Any]:
    """What timm's VisionTransformer takes."""
    backbone = Backbone.of(model)
    hidden = len(encoder[backbone.names.mlp_keys(0)["fc_weight"]])
    arguments: dict[str, Any] = {
        "img_size": backbone.pictures.size,
        "patch_size": backbone.patch,
        "embed_dim": backbone.width,
        "depth": backbone.blocks,
        "num_heads": backbone.attention_heads,
        "mlp_ratio": hidden / backbone.width,
        # As timm has it in its own models with register tokens.
        "reg_tokens": len(encoder.get(OPEN_CLIP.registers, ())),
        "no_embed_class": OPEN_CLIP.registers in encoder,
        "pre_norm": f"{OPEN_CLIP.norm_before}.weight" in encoder,
    }
    if any(key.endswith(OPEN_CLIP.scales) for key in encoder):
        arguments["init_values"] = 1e-5  # a start; the weights bring their own
    if backbone.activation != "gelu":
        arguments["act_layer"] = backbone.activation
    return arguments


def _pictures(pictures: PictureRules) -> dict[str, Any]:
    fit = pictures.fit
    return {
        "input_size": [3, fit.size, fit.size],
        "fixed_input_size": True,
        "interpolation": fit.interpolation,
        "crop_pct": fit.size / (fit.to or fit.size),
        "crop_mode": "squash" if fit.resize == "squash" else "center",
        "mean": list(pictures.mean),
        "std": list(pictures.std),
        "num_classes": 0,
        "first_conv": TIMM_VIT.patches.removesuffix(".weight"),
        "classifier": "head",
    }


def _unlike(reason: str) -> str:
    return (
        f"This encoder is none of timm's plain vision transformers: {reason}\n"
        "  format=hf, format=open_clip and format=safetensors write others."
    )
