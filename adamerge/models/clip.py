"""CLIP models through open_clip: the image encoder that is merged, and the text tower that makes the heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from adamerge.architecture import Activation
from adamerge.errors import CheckpointError, ConfigError
from adamerge.models.attention import suited_attention
from adamerge.models.pictures import PictureRules
from adamerge.models.registers import registers_of, with_registers, without_registers
from adamerge.models.timm_vit import PREFIX as TIMM
from adamerge.models.timm_vit import timm_config
from adamerge.models.trunks import fixed_buffers, has_trunk, side_of, sized

if TYPE_CHECKING:
    import open_clip

    from adamerge.models.backbone import Backbone

Model = str | Mapping[str, Any]


class ImageEncoder(nn.Module):
    """open_clip's vision tower under the name `visual`, so that its keys are those of the public checkpoints.

    Called with images (n, 3, H, W): uint8 pixels are scaled and normalised here, on the device they are on (a
    quarter of the bytes to move); floats are taken as normalised already. Returns features (n, d) after the
    projection, not normalised.

    Args:
        visual: open_clip's vision tower.
        backbone: what it is built from, and the rules of its pictures; without one they are CLIP's.
    """

    def __init__(self, visual: nn.Module, backbone: Backbone | None = None) -> None:
        super().__init__()
        self.visual = visual
        self.backbone = backbone
        self._fixed = fixed_buffers(visual)

    @property
    def pictures(self) -> PictureRules:
        """The rules of its pictures."""
        if self.backbone is not None:
            return self.backbone.pictures
        return PictureRules.of(side_of(getattr(self.visual, "image_size", 224)))

    def forward(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            like = next(self.parameters())
            images = self.pictures.normalise(images, like.dtype)
        for module, name in self._fixed:  # they are given from nowhere else, and follow the pictures
            module._buffers[name] = module.get_buffer(name).to(images.device)
        with suited_attention(images, self.backbone.tokens if self.backbone is not None else 0):
            features: Tensor = self.visual(images)
        return features


def pictures_of(encoder: nn.Module) -> PictureRules:
    """The rules of an encoder's pictures; CLIP's for one that does not say."""
    rules = getattr(encoder, "pictures", None)
    return rules if isinstance(rules, PictureRules) else PictureRules.of(224)


def model_config(model: Model) -> dict[str, Any]:
    """open_clip's model configuration: for one of its model names, a `timm:<name>`, or given in full."""
    if not isinstance(model, str):
        return dict(model)
    if model.startswith(TIMM):
        return timm_config(model)
    import open_clip

    config = open_clip.get_model_config(model)
    if config is None:
        raise ConfigError(f"backbone.model: open_clip knows no model '{model}'. See open_clip.list_models().")
    return dict(config)


def build_clip(model: Model, state: Mapping[str, Tensor] | None = None) -> open_clip.CLIP:
    """A CLIP with both towers, with random weights or those of `state`.

    Raises:
        ConfigError: the model is an image encoder alone.
    """
    _text_config(model)
    clip = _made(model_config(model))
    if state is not None:
        clip.load_state_dict({key: value.float() for key, value in state.items()})
    return clip.eval()


def _text_config(model: Model) -> Mapping[str, Any]:
    config = model_config(model)
    if not config.get("text_cfg"):
        raise ConfigError(
            "backbone.model: it has no text tower (no text_cfg), which a whole CLIP takes.\n  Where the weights have "
            "one, add its text_cfg to backbone.model. Else give heads that need no text: head files as "
            "checkpoints.heads=<folder>/{task}.safetensors, or checkpoints.heads=prototypes."
        )
    text: Mapping[str, Any] = config["text_cfg"]
    return text


def build_visual(model: Model) -> nn.Module:
    """The image encoder alone; the model need not have a text tower."""
    return visual_of(model_config(model))


def visual_of(config: Mapping[str, Any]) -> nn.Module:
    """The image encoder of an open_clip configuration."""
    text = config.get("text_cfg") or _NO_TEXT
    if has_trunk(config) or "hf_model_name" in text:
        text = _NO_TEXT
    return _made({**config, "text_cfg": text}).visual.eval()


def _made(config: Mapping[str, Any]) -> Any:
    """The class that open_clip's own factory takes for a configuration, without pre-trained parts of other places."""
    import open_clip

    config = dict(config)
    own_text = config.pop("custom_text", False) or "hf_model_name" in (config.get("text_cfg") or {})
    if "hf_model_name" in (config.get("text_cfg") or {}):
        config["text_cfg"] = {**config["text_cfg"], "hf_model_pretrained": False}
    if has_trunk(config):
        config["vision_cfg"] = {**config["vision_cfg"], "timm_model_pretrained": False}
    registers = registers_of(config["vision_cfg"])
    config["vision_cfg"] = without_registers(config["vision_cfg"])
    clip: Any = (open_clip.CustomTextCLIP if own_text else open_clip.CLIP)(**config)
    sized(clip.visual, config)
    with_registers(clip.visual, registers)
    return clip


# open_clip's CLIP cannot be without a text tower; this one is built and left.
_NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 64, "heads": 1, "layers": 1}


def activation(model: Model) -> Activation:
    """That of the MLPs."""
    return "quick_gelu" if model_config(model).get("quick_gelu") else "gelu"


def image_size(model: Model) -> int:
    """Side length of the input images in pixels."""
    return side_of(model_config(model)["vision_cfg"]["image_size"])


def at_size(model: Model, size: int) -> Model:
    """The same backbone for images of another side length in pixels."""
    config = model_config(model)
    vision = {**config["vision_cfg"], "image_size": size}
    if isinstance(model, str):  # a name leaves nothing open, which a configuration does
        from open_clip import CLIPVisionCfg

        config, vision = {"quick_gelu": False, **config}, {**asdict(CLIPVisionCfg()), **vision}
    return {**config, "vision_cfg": vision}


def tokenizer(model: Model, fetch: bool = False) -> Any:
    """The tokenizer that belongs to a model: calling it with n texts gives tokens (n, context length).

    Args:
        fetch: one of Hugging Face's that is not in the hub's cache is fetched.

    Raises:
        CheckpointError: it is one of Hugging Face's (SigLIP's, say) that is not in the cache.
        ConfigError: the model is an image encoder alone.
    """
    import open_clip
    from open_clip.tokenizer import HFTokenizer

    text = _text_config(model)
    if not (name := text.get("hf_tokenizer_name")):
        if isinstance(model, str):
            return open_clip.get_tokenizer(model)
        return open_clip.SimpleTokenizer(context_length=text["context_length"])
    options = {key: text[key] for key in ("context_length", "tokenizer_mode") if key in text}
    try:
        return HFTokenizer(name, **options, **text.get("tokenizer_kwargs", {}), local_files_only=not fetch)
    except (OSError, ValueError, ImportError) as error:
        raise CheckpointError(
            f"The backbone's tokenizer, '{name}', is not here: {str(error).strip().splitlines()[0]}\n"
            "  Add download=true to fetch it. Or give heads that need no text: head files as "
            "checkpoints.heads=<folder>/{task}.safetensors, or checkpoints.heads=prototypes."
        ) from error
