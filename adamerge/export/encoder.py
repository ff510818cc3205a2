"""The merged image encoder as weights: an open_clip folder, a Hugging Face folder, or plain safetensors."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adamerge.architecture import OPEN_CLIP
from adamerge.checkpoints import compare_states, save_tensors
from adamerge.errors import CheckpointError
from adamerge.export.hf import vision_config, vision_state
from adamerge.files import atomic_write_text
from adamerge.models.clip import Model, build_clip, model_config, tokenizer, visual_of
from adamerge.models.local_dir import save_local_dir
from adamerge.models.pictures import PictureRules
from adamerge.models.trunks import has_trunk

State = Mapping[str, Tensor]
log = logging.getLogger(__name__)
_ALONE = "format=hf, format=timm and format=safetensors write the image encoder alone."


def write_open_clip(folder: Path, encoder: State, model: Model, base: State, pictures: PictureRules) -> None:
    """An open_clip `local-dir:` folder: the merged image tower beside the base's text tower, so that the whole CLIP
    loads. float32.

    Args:
        encoder: the merged encoder, open_clip keys.
        base: the base's state dict, both towers.

    Raises:
        CheckpointError: the base has no text tower that fits the backbone; or open_clip makes the encoder at another
            size only.
    """
    if not model_config(model).get("text_cfg"):
        raise CheckpointError(
            "The backbone has no text tower (backbone.model.text_cfg), so no whole CLIP can be written for open_clip."
            f"\n  {_ALONE}"
        )
    _refuse_resized(encoder, model_config(model))
    with torch.device("meta"):
        expected = build_clip(model).state_dict()
    whole = {key: value for key, value in {**base, **encoder}.items() if key in expected}
    if wrong := compare_states(expected, whole):
        raise CheckpointError(
            f"The base checkpoint has no text tower that fits the backbone ({len(wrong)} tensors missing or of another "
            f"shape, e.g. {wrong[0].key}), so no whole CLIP can be written for open_clip.\n"
            f"  {_ALONE}"
        )
    save_local_dir(folder, {key: value.float() for key, value in whole.items()}, model, pictures)
    if (named := (model_config(model).get("text_cfg") or {}).get("hf_tokenizer_name")) is not None:
        try:
            # Where open_clip looks for the tokenizer of such a folder.
            tokenizer(model).save_pretrained(folder)
        except CheckpointError:
            log.warning(
                "The tokenizer %s is not here, so that open_clip.get_tokenizer finds none in the folder.",
                named,
            )


def _refuse_resized(encoder: State, config: Mapping[str, Any]) -> None:
    """open_clip makes a trunk of timm's at the size of its name, whatever size the configuration says."""
    if not has_trunk(config):
        return
    vision = {key: value for key, value in config["vision_cfg"].items() if key != "image_size"}
    with torch.device("meta"):
        own = visual_of({**config, "vision_cfg": vision}).state_dict()
    ours = {OPEN_CLIP.bare(key): value for key, value in encoder.items()}
    if wrong := compare_states(own, ours):
        raise CheckpointError(
            f"open_clip makes {vision['timm_model_name']} with {wrong[0].key} {wrong[0].expected}, and the merged "
            f"encoder has {wrong[0].found}: it is for pictures of another size.\n"
            "  format=safetensors writes it as it is."
        )


def write_hf(folder: Path, encoder: State, model: Model, pictures: PictureRules) -> None:
    """A Hugging Face folder for CLIPVisionModelWithProjection, ViTModel or Dinov2Model, with its preprocessing;.

    Raises:
        PoolError: an architecture that none of them has.
    """
    config = vision_config(encoder, model)
    save_tensors(folder / "model.safetensors", vision_state(encoder), {"format": "pt"})
    fit = pictures.fit
    side, stretched = fit.to or fit.size, fit.resize == "squash"
    preprocess = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": side, "width": side} if stretched else {"shortest_edge": side},
        "resample": {"bilinear": 2, "bicubic": 3}[fit.interpolation],
        "do_center_crop": side != fit.size or not stretched,
        "crop_size": {"height": fit.size, "width": fit.size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": pictures.mean,
        "image_std": pictures.std,
    }
    atomic_write_text(folder / "preprocessor_config.json", json.dumps(preprocess, indent=2) + "\n")
    atomic_write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")


def write_safetensors(folder: Path, encoder: State, model: Model, pictures: PictureRules) -> None:
    """One file with open_clip keys; the backbone and the rules of its pictures stand in its metadata."""
    rules = json.dumps(asdict(pictures))
    metadata = {"keys": "open_clip", "backbone": json.dumps(model), "pictures": rules, "format": "pt"}
    save_tensors(folder / "image_encoder.safetensors", encoder, metadata)
