"""Small models that PEFT adapts, and what it makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
)

VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
    "projection_dim": 8,
}
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 20,
    "max_position_embeddings": 8,
    "projection_dim": 8,
}
ALL = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
MODEL = {
    "embed_dim": 8,
    "quick_gelu": True,
    "vision_cfg": {
        "image_size": 8,
        "layers": 2,
        "width": 16,
        "head_width": 8,
        "patch_size": 4,
        "mlp_ratio": 2,
    },
    "text_cfg": {"context_length": 8, "vocab_size": 20, "width": 16, "heads": 2, "layers": 2},
}


def hugging_face(kind: type[nn.Module] = CLIPVisionModelWithProjection) -> nn.Module:
    torch.manual_seed(0)
    if kind is CLIPModel:
        return CLIPModel(CLIPConfig(vision_config=VISION, text_config=TEXT, projection_dim=8))
    return kind(CLIPVisionConfig(**VISION))


def open_clip() -> nn.Module:
    from adamerge.models.clip import build_clip

    torch.manual_seed(0)
    return build_clip(MODEL)


def adapt(model: nn.Module, folder: Path, seed: int = 1, **config: Any) -> Path:
    """Save a LoRA of random numbers on a model, as PEFT does; what it trains beside the factors is moved too."""
    adapted = get_peft_model(model, LoraConfig(**{"r": 2, "lora_alpha": 3, **config}))
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    adapted.save_pretrained(str(folder))
    return folder


def merged_by_peft(model: nn.Module, folder: Path) -> dict[str, Tensor]:
    """The tensors of the model with the saved adapter merged into it."""
    return dict(PeftModel.from_pretrained(model, str(folder)).merge_and_unload().state_dict())


__all__ = ["ALL", "CLIPModel", "CLIPVisionModel", "CLIPVisionModelWithProjection", "MODEL", "adapt", "hugging_face",
           "merged_by_peft", "open_clip"]  # fmt: skip
