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
from adamerge.models.clip import ImageEncoder, Model, activation, build_visual, image_size, model_config
from adamerge.models.pictures import PictureRules


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
            ConfigError: no name of open_clip's, or no vision transformer.
        """
        from open_clip import CLIPVisionCfg

        config = model_config(model)
        vision = {**asdict(CLIPVisionCfg()), **config["vision_cfg"]}
        if vision["timm_model_name"] or not isinstance(vision["layers"], int):
            raise ConfigError(
                f"backbone.model: the image encoder of {_called(model)} is none of open_clip's vision transformers.\n"
                "  Choose one, such as ViT-B-32-quickgelu, ViT-B-16 or ViT-L-14."
            )
        side, patch = image_size(model), _side(vision["patch_size"])
        return cls(
            names=OPEN_CLIP,
            embed_dim=config["embed_dim"],
            width=vision["width"],
            tokens=(side // patch) ** 2 + 1,
            blocks=vision["layers"],
            attention_heads=vision["width"] // vision["head_width"],
            patch=patch,
            activation=activation(model),
            model=model,
            pictures=pictures or PictureRules.of(side),
            text=config.get("text_cfg"),
        )

    def build(self) -> ImageEncoder:
        """The image encoder without storage (on the meta device): shapes and code, no weights."""
        with torch.device("meta"):
            visual = build_visual(self.model)
        return ImageEncoder(visual, self).eval().requires_grad_(False)

    def shapes(self) -> dict[str, Tensor]:
        """The tensors that its image encoder has, without storage, in the order of the state dict."""
        return dict(self.build().state_dict())


def _side(size: Any) -> int:
    return int(size if isinstance(size, int) else size[0])


def _called(model: Model) -> str:
    return f"'{model}'" if isinstance(model, str) else "this configuration"
