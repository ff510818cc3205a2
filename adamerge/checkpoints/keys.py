"""Names of an image encoder's tensors: Hugging Face's, and open_clip's, which adamerge uses."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

State = dict[str, Tensor]

# Text tensors that the task-vectors checkpoints carry along though the text transformer was dropped.
TEXT_LEFTOVERS = (
    "positional_embedding",
    "text_projection",
    "logit_scale",
    "token_embedding.weight",
    "ln_final.weight",
    "ln_final.bias",
)

_OUTSIDE = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "pre_layrnorm.weight": "ln_pre.weight",  # Hugging Face's own spelling
    "pre_layrnorm.bias": "ln_pre.bias",
    "post_layernorm.weight": "ln_post.weight",
    "post_layernorm.bias": "ln_post.bias",
}
_OF_TEXT = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_IN_BLOCK = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_HF_BLOCK = re.compile(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
_HF_QKV = re.compile(r"encoder\.layers\.\d+\.self_attn\.[qkv]_proj\.(weight|bias)")
_OC_BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)\.(weight|bias)")


def is_hf(state: Mapping[str, Tensor]) -> bool:
    return any(key.endswith("embeddings.patch_embedding.weight") for key in state)


def hf_to_open_clip(state: Mapping[str, Tensor]) -> State:
    """Rename a CLIPVisionModel's tensors (with or without the prefix `vision_model.`) to `visual.*`.

    Query, key and value are joined in this order; `visual_projection` is transposed. A plain CLIPVisionModel has no
    projection, and then the result has no `visual.proj`. Text tensors of a whole CLIPModel are left out.
    """
    vision = {key.removeprefix("vision_model."): value for key, value in state.items()}
    renamed: State = {}
    fused: dict[tuple[str, str], dict[str, Tensor]] = {}
    for key, value in vision.items():
        if key in _OUTSIDE:
            renamed[f"visual.{_OUTSIDE[key]}"] = value
        elif key == "visual_projection.weight":
            renamed["visual.proj"] = value.t().contiguous()
        elif match := _HF_BLOCK.fullmatch(key):
            block, name, kind = match.groups()
            if name in _IN_BLOCK:
                renamed[f"visual.transformer.resblocks.{block}.{_IN_BLOCK[name]}.{kind}"] = value
            elif name.startswith("self_attn."):
                fused.setdefault((block, kind), {})[name[len("self_attn.") :]] = value
    for (block, kind), parts in fused.items():
        if set(parts) == {"q_proj", "k_proj", "v_proj"}:
            joined = torch.cat([parts["q_proj"], parts["k_proj"], parts["v_proj"]])
            renamed[f"visual.transformer.resblocks.{block}.attn.in_proj_{kind}"] = joined
    return renamed


def hf_clip_to_open_clip(state: Mapping[str, Tensor]) -> State:
    """Rename a whole CLIPModel's tensors: the vision tower's as `hf_to_open_clip`, and the text tower's.

    Without a text tower in `state` the result has the vision tower alone.
    """
    text = {
        key.removeprefix("text_model."): value
        for key, value in state.items()
        if key.startswith("text_model.")
    }
    renamed = hf_to_open_clip(
        {key: value for key, value in state.items() if not key.startswith("text_model.")}
    )
    # The blocks of both towers are alike; as a vision tower's they get `visual.`, which a text tower goes without.
    blocks = hf_to_open_clip({key: value for key, value in text.items() if key.startswith("encoder.")})
    renamed |= {key.removeprefix("visual."): value for key, value in blocks.items()}
    renamed |= {ours: text[theirs] for theirs, ours in _OF_TEXT.items() if theirs in text}
    if "text_projection.weight" in state:
        renamed["text_projection"] = state["text_projection.weight"].t().contiguous()
    if "logit_scale" in state:
        renamed["logit_scale"] = state["logit_scale"]
    return renamed


def open_clip_to_hf(state: Mapping[str, Tensor]) -> State:
    """The inverse: `visual.*` to `vision_model.*` and `visual_projection.weight`."""
    outside = {f"visual.{ours}": theirs for theirs, ours in _OUTSIDE.items()}
    in_block = {ours: theirs for theirs, ours in _IN_BLOCK.items()}
    renamed: State = {}
    for key, value in state.items():
        if key in outside:
            renamed[f"vision_model.{outside[key]}"] = value
        elif key == "visual.proj":
            renamed["visual_projection.weight"] = value.t().contiguous()
        elif match := re.fullmatch(
            r"visual\.transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)", key
        ):
            block, kind = match.groups()
            for part, name in zip(value.chunk(3), "qkv", strict=True):
                renamed[f"vision_model.encoder.layers.{block}.self_attn.{name}_proj.{kind}"] = (
                    part.contiguous()
                )
        elif match := _OC_BLOCK.fullmatch(key.removeprefix("visual.")):
            block, name, kind = match.groups()
            renamed[f"vision_model.encoder.layers.{block}.{in_block[name]}.{kind}"] = value
    return renamed


def used_by(encoder: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> set[str]:
    """The keys of `state`, in either family's names, that the image encoder (open_clip keys) was made of."""
    if not is_hf(state):
        return {key for key in state if key.startswith("visual.")}
    names = {key.removeprefix("vision_model.") for key in open_clip_to_hf(encoder)}
    # A query without its key and value is part of no encoder yet, but nothing foreign either.
    return {
        key
        for key in state
        if (name := key.removeprefix("vision_model.")) in names or (_HF_QKV.fullmatch(name) is not None)
    }
