"""Small models of timm's below a CLIP of open_clip's: as SigLIP, PE and EVA02 are, with few layers."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from timm.models import register_model
from timm.models.eva import Eva, _create_eva
from timm.models.vision_transformer import VisionTransformer, _create_vision_transformer
from torch import nn

SIZES: dict[str, Any] = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}


@register_model
def vit_nano_patch4_siglip_8(pretrained: bool = False, **options: Any) -> VisionTransformer:
    made = {**SIZES, "mlp_ratio": 2.0, "class_token": False, "global_pool": "map", **options}
    model: VisionTransformer = _create_vision_transformer("vit_nano_patch4_siglip_8", pretrained, **made)
    return model


@register_model
def vit_nano_patch4_pe_8(pretrained: bool = False, **options: Any) -> Eva:
    rotary = {"attn_type": "rope", "use_rot_pos_emb": True, "ref_feat_shape": (2, 2)}
    rotary |= {"rope_grid_offset": 1.0, "rope_grid_indexing": "xy"}
    pooled = {"global_pool": "map", "attn_pool_num_heads": 2, "attn_pool_mlp_ratio": 2.0}
    made = {**SIZES, "mlp_ratio": 2.0, "use_pre_transformer_norm": True, **rotary, **pooled}
    made |= {"norm_layer": partial(nn.LayerNorm, eps=1e-5), **options}
    model: Eva = _create_eva("vit_nano_patch4_pe_8", pretrained, **made)
    return model


@register_model
def eva02_nano_patch4_clip_8(pretrained: bool = False, **options: Any) -> Eva:
    inside = {"qkv_fused": False, "swiglu_mlp": True, "scale_mlp": True, "scale_attn_inner": True}
    made = {**SIZES, "mlp_ratio": 2.0, **inside, "use_rot_pos_emb": True, "ref_feat_shape": (4, 4)}
    model: Eva = _create_eva(
        "eva02_nano_patch4_clip_8", pretrained, **{**made, "global_pool": "token", **options}
    )
    return model


TEXT = {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1}
SIGLIP_TEXT = {
    **TEXT,
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
    "norm_kwargs": {"eps": 1e-6},
}
HALF = (0.5, 0.5, 0.5)
SQUASH = {"mean": HALF, "std": HALF, "interpolation": "bicubic", "resize_mode": "squash"}
CLIP = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def config(trunk: str, pool: str, proj: str | None, embed: int, side: int = 8, **more: Any) -> dict[str, Any]:
    vision = {"image_size": side, "timm_model_name": trunk, "timm_model_pretrained": False}
    vision |= {"timm_pool": pool, "timm_proj": proj}
    return {"embed_dim": embed, "vision_cfg": vision, "text_cfg": TEXT, "custom_text": True, **more}


SIGLIP = config("vit_nano_patch4_siglip_8", "map", "none", 16, text_cfg=SIGLIP_TEXT, init_logit_bias=-10)
PE = config("vit_nano_patch4_pe_8", "map", None, 12)
EVA02 = config("eva02_nano_patch4_clip_8", "token", None, 12)
CONVNEXT = config("test_convnext", "", "linear", 12, side=64)
del CONVNEXT["custom_text"]


def tokenizer_folder(folder: Path) -> Path:
    """A tokenizer of Hugging Face's for a few words, as the hub has one."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [
        "<pad>",
        "<unk>",
        "a",
        "photo",
        "of",
        "bird",
        "tool",
        "sign",
        "class",
        *(f"{i:02}" for i in range(20)),
    ]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>").save_pretrained(
        folder
    )
    return folder


def saved(model: dict[str, Any], folder: Path, seed: int, pictures: dict[str, Any] | None = None) -> Any:
    """A CLIP of open_clip's own factory with random weights, saved as its `local-dir:` folder."""
    import open_clip

    folder.mkdir(parents=True, exist_ok=True)
    about = {"model_cfg": model, "preprocess_cfg": SQUASH if pictures is None else pictures}
    (folder / "open_clip_config.json").write_text(json.dumps(about))
    clip = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in clip.parameters():
            value.add_(0.2 * torch.randn(value.shape, generator=generator))
    tensors = {key: value.contiguous().clone() for key, value in clip.state_dict().items()}
    save_file(tensors, folder / "open_clip_model.safetensors")
    return clip.eval()
