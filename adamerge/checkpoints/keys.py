"""Names of an image encoder's tensors: Hugging Face's, and open_clip's, which adamerge uses."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from adamerge.architecture import HF_CLIP, OPEN_CLIP, Names

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

_KINDS = ("weight", "bias")


def _outside(names: Names) -> list[str]:
    """The tensors outside of the blocks that both families have alike."""
    norms = [f"{norm}.{kind}" for norm in (names.norm_before, names.norm_after) for kind in _KINDS]
    return [names.class_token, names.positions, names.patches, *norms]


def _modules(names: Names) -> list[str]:
    """The modules of a block that both families have alike."""
    return [*names.norms, names.attention_out, names.mlp_in, names.mlp_out]


# From Hugging Face's names, within CLIPVisionModel, to open_clip's.
_OUTSIDE = {
    HF_CLIP.bare(theirs): ours for theirs, ours in zip(_outside(HF_CLIP), _outside(OPEN_CLIP), strict=True)
}
_IN_BLOCK = dict(zip(_modules(HF_CLIP), _modules(OPEN_CLIP), strict=True))
_QKV = [part.removesuffix(".{kind}") for part in HF_CLIP.apart]
_OF_TEXT = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_HF_BLOCK = re.compile(rf"{re.escape(HF_CLIP.bare(HF_CLIP.blocks))}\.(\d+)\.(.+)\.(weight|bias)")


def is_hf(state: Mapping[str, Tensor]) -> bool:
    return any(key.endswith(HF_CLIP.bare(HF_CLIP.patches)) for key in state)


def hf_to_open_clip(state: Mapping[str, Tensor]) -> State:
    """Rename a CLIPVisionModel's tensors (with or without the prefix `vision_model.`) to `visual.*`.

    Query, key and value are joined in this order; `visual_projection` is transposed. A plain CLIPVisionModel has no
    projection, and then the result has no `visual.proj`. Text tensors of a whole CLIPModel are left out.
    """
    vision = {HF_CLIP.bare(key): value for key, value in state.items()}
    renamed: State = {}
    fused: dict[tuple[str, str], dict[str, Tensor]] = {}
    for key, value in vision.items():
        if key in _OUTSIDE:
            renamed[_OUTSIDE[key]] = value
        elif key == HF_CLIP.projection:
            renamed[OPEN_CLIP.projection] = value.t().contiguous()
        elif match := _HF_BLOCK.fullmatch(key):
            block, name, kind = match.groups()
            if name in _IN_BLOCK:
                renamed[f"{OPEN_CLIP.block(int(block))}.{_IN_BLOCK[name]}.{kind}"] = value
            elif name in _QKV:
                fused.setdefault((block, kind), {})[name] = value
    for (block, kind), parts in fused.items():
        if set(parts) == set(_QKV):
            key = f"{OPEN_CLIP.block(int(block))}.{OPEN_CLIP.fused.format(kind=kind)}"
            renamed[key] = torch.cat([parts[name] for name in _QKV])
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
    blocks = hf_to_open_clip({key: value for key, value in text.items() if _HF_BLOCK.fullmatch(key)})
    renamed |= {OPEN_CLIP.bare(key): value for key, value in blocks.items()}
    renamed |= {ours: text[theirs] for theirs, ours in _OF_TEXT.items() if theirs in text}
    if "text_projection.weight" in state:
        renamed["text_projection"] = state["text_projection.weight"].t().contiguous()
    if "logit_scale" in state:
        renamed["logit_scale"] = state["logit_scale"]
    return renamed


def open_clip_to_hf(state: Mapping[str, Tensor]) -> State:
    """The inverse: `visual.*` to `vision_model.*` and `visual_projection.weight`."""
    outside = {ours: HF_CLIP.prefix + theirs for theirs, ours in _OUTSIDE.items()}
    in_block = {f"{ours}.{kind}": f"{theirs}.{kind}" for theirs, ours in _IN_BLOCK.items() for kind in _KINDS}
    renamed: State = {}
    for key, value in state.items():
        if key in outside:
            renamed[outside[key]] = value
        elif key == OPEN_CLIP.projection:
            renamed[HF_CLIP.projection] = value.t().contiguous()
        elif (index := OPEN_CLIP.block_of(key)) is not None:
            block = HF_CLIP.block(index)
            if OPEN_CLIP.is_fused(key):
                kind = key.rpartition("_")[2]
                for part, name in zip(value.chunk(3), HF_CLIP.apart, strict=True):
                    renamed[f"{block}.{name.format(kind=kind)}"] = part.contiguous()
            elif (within := OPEN_CLIP.within(key)) in in_block:
                renamed[f"{block}.{in_block[within]}"] = value
    return renamed


def used_by(encoder: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> set[str]:
    """The keys of `state`, in either family's names, that the image encoder (open_clip keys) was made of."""
    if not is_hf(state):
        return {key for key in state if key.startswith(OPEN_CLIP.prefix)}
    names = {HF_CLIP.bare(key) for key in open_clip_to_hf(encoder)}
    # A query without its key and value is part of no encoder yet, but nothing foreign either.
    return {key for key in state if (name := HF_CLIP.bare(key)) in names or _is_of_attention(name)}


def _is_of_attention(name: str) -> bool:
    """Whether a tensor of Hugging Face's, without the prefix, is a query, key or value."""
    match = _HF_BLOCK.fullmatch(name)
    return match is not None and match[2] in _QKV
