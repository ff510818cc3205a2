"""The backbone: what the program knows of an architecture, made once from its open_clip name or configuration.

The names of its tensors stand in `adamerge.architecture`, which everything below asks as well.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from adamerge.architecture import OPEN_CLIP, Architecture
from adamerge.errors import ConfigError
from adamerge.models.clip import (
    ImageEncoder,
    Model,
    activation,
    build_visual,
    image_size,
    model_config,
    visual_of,
)
from adamerge.models.pictures import PictureRules
from adamerge.models.registers import registers_of
from adamerge.models.trunks import NO_BATCHNORM, has_trunk, side_of, trunk_sizes, with_fixed_buffers


@dataclass(frozen=True)
class Backbone(Architecture):
    """An architecture with all that is needed to build and feed it.

    Attributes:
        model: its open_clip name or configuration.
        pictures: the rules of its pictures: size, resizing, mean and deviation.
        text: the configuration of its text tower; None for an encoder without one.
    """

    model: Model
    pictures: PictureRules
    text: dict[str, Any] | None

    @classmethod
    def of(cls, model: Model, pictures: PictureRules | None = None) -> Backbone:
        """The backbone of an open_clip name or configuration; CLIP's mean and deviation unless others are given.

        Raises:
            ConfigError: no name of open_clip's, or an image encoder of a kind that is not known.
        """
        config = model_config(model)
        sizes = trunk_sizes(config, visual_of) if has_trunk(config) else _transformer_sizes(model)
        return cls(
            **sizes,
            embed_dim=config["embed_dim"],
            model=model,
            pictures=pictures or PictureRules.of(image_size(model)),
            text=config.get("text_cfg"),
        )

    def build(self) -> ImageEncoder:
        """The image encoder without storage (on the meta device): shapes and code, no weights."""
        with torch.device("meta"):
            visual = build_visual(self.model)
        with_fixed_buffers(visual)
        return ImageEncoder(visual, self).eval().requires_grad_(False)

    def shapes(self) -> dict[str, Tensor]:
        """The tensors that its image encoder has, without storage, in the order of the state dict."""
        return dict(self.build().state_dict())


def _transformer_sizes(model: Model) -> dict[str, Any]:
    """What `Architecture` says of open_clip's own vision transformers."""
    from open_clip import CLIPVisionCfg

    vision = {**asdict(CLIPVisionCfg()), **model_config(model)["vision_cfg"]}
    if not isinstance(vision["layers"], int):
        raise ConfigError(
            f"backbone.model: the image encoder of {_called(model)} is a ResNet with BatchNorm.\n  {NO_BATCHNORM}"
        )
    side, patch = image_size(model), side_of(vision["patch_size"])
    return {
        "names": OPEN_CLIP,
        "width": vision["width"],
        "tokens": (side // patch) ** 2 + 1 + registers_of(vision),
        "blocks": vision["layers"],
        "attention_heads": vision["width"] // vision["head_width"],
        "patch": patch,
        "activation": activation(model),
    }


def _called(model: Model) -> str:
    return f"'{model}'" if isinstance(model, str) else "this configuration"
