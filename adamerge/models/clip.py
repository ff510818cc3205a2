"""CLIP models through open_clip: the image encoder that is merged, and the text tower that makes the heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from adamerge.errors import ConfigError

if TYPE_CHECKING:
    import open_clip

# The mean and standard deviation of CLIP's training images (reference 2.1).
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

Model = str | Mapping[str, Any]


class ImageEncoder(nn.Module):
    """open_clip's vision tower under the name `visual`, so that its keys are those of the public checkpoints.

    Called with images (n, 3, H, W): uint8 pixels are scaled and normalised here, on the device they are on (a
    quarter of the bytes to move); floats are taken as normalised already. Returns features (n, d) after the
    projection, not normalised.
    """

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            like = next(self.parameters())
            images = normalise(images, like.dtype)
        features: Tensor = self.visual(images)
        return features


def normalise(pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 pixels (n, 3, H, W) as CLIP's normalised floats."""
    mean = torch.tensor(MEAN, device=pixels.device, dtype=dtype).view(3, 1, 1)
    std = torch.tensor(STD, device=pixels.device, dtype=dtype).view(3, 1, 1)
    return (pixels.to(dtype) / 255.0 - mean) / std


def model_config(model: Model) -> dict[str, Any]:
    """open_clip's model configuration, for one of its model names or given in full."""
    if not isinstance(model, str):
        return {key: value for key, value in model.items() if key != "custom_text"}
    import open_clip

    config = open_clip.get_model_config(model)
    if config is None:
        raise ConfigError(f"backbone.model: open_clip knows no model '{model}'. See open_clip.list_models().")
    return dict(config)


def build_clip(model: Model, state: Mapping[str, Tensor] | None = None) -> open_clip.CLIP:
    """A CLIP with both towers, with random weights or those of `state`."""
    import open_clip

    clip = open_clip.CLIP(**model_config(model))
    if state is not None:
        clip.load_state_dict({key: value.float() for key, value in state.items()})
    return clip.eval()


def image_encoder(model: Model) -> ImageEncoder:
    """The image encoder without storage (on the meta device): shapes and code, no weights."""
    with torch.device("meta"):
        clip = build_clip(model)
    return ImageEncoder(clip.visual).eval().requires_grad_(False)


def image_size(model: Model) -> int:
    """Side length of the input images in pixels."""
    size = model_config(model)["vision_cfg"]["image_size"]
    return int(size if isinstance(size, int) else size[0])


def tokenizer(model: Model) -> Any:
    """The tokenizer that belongs to a model: calling it with n texts gives tokens (n, context length)."""
    import open_clip

    if isinstance(model, str):
        return open_clip.get_tokenizer(model)
    return open_clip.SimpleTokenizer(context_length=model_config(model)["text_cfg"]["context_length"])
