"""Plain vision transformers, Hugging Face's ViT, DeiT and DINOv2 and timm's, under open_clip's names.

open_clip's vision transformer computes what they compute: without a norm before the blocks (`no_ln_pre`), with the
identity as projection, LayerScale as `ls_1` and `ls_2`, and the patch projection's bias, which every patch gets once
like its position, added to the position embeddings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from adamerge.architecture import OPEN_CLIP, VITS, Names
from adamerge.errors import CheckpointError

State = dict[str, Tensor]
_KINDS = ("weight", "bias")
# What stands in a whole model beside what makes the class token's feature, and has no part in it.
_UNUSED = re.compile(r"(.+\.)?(mask_token|pooler\.dense\.(weight|bias)|embeddings\.position_ids)")


def vit_names(state: Mapping[str, Tensor]) -> Names | None:
    """The family that a state dict's names are of, below whatever prefix the family has; None for another."""
    keys = [key for key in state if key.endswith(tuple(names.bare(names.patches) for names in VITS))]
    return next((names for names in VITS for key in keys if _start(names, key, state) is not None), None)


def vit_prefix(key: str, state: Mapping[str, Tensor]) -> str | None:
    """What stands before the names of a plain vision transformer whose patch projection is `key`; None: it is none."""
    return next((start for names in VITS if (start := _start(names, key, state)) is not None), None)


def _start(names: Names, key: str, state: Mapping[str, Tensor]) -> str | None:
    """The prefix of the family's bare names, where the tensors that tell the family have it too."""
    patches = names.bare(names.patches)
    if not (key == patches or key.endswith("." + patches)):
        return None
    start = key.removesuffix(patches)
    first = f"{start}{names.bare(names.block(0))}.{names.mlp_in}.weight"
    return start if first in state and start + names.bare(names.positions) in state else None


def vit_to_open_clip(state: Mapping[str, Tensor]) -> State:
    """Rename and refold a plain vision transformer's tensors to `visual.*`; others are left out.

    Raises:
        CheckpointError: it has what open_clip's vision transformer has no place for.
    """
    renamed: State = {}
    for ours, value, _ in _tensors(state):
        renamed[ours] = value
    return renamed


def open_clip_to_vit(encoder: Mapping[str, Tensor], names: Names) -> State:
    """The inverse for one of Hugging Face's families; the patch projection's bias, which the positions hold, is zero.

    Raises:
        CheckpointError: a projection other than the identity, for which they have no place.
    """
    projection = encoder[OPEN_CLIP.projection]
    if not torch.equal(projection, torch.eye(len(projection), dtype=projection.dtype)):
        raise CheckpointError(
            "The encoder has a projection behind its last norm, for which a plain ViT has no place."
        )
    patches = names.bare(names.patches)
    renamed: State = {
        names.bare(names.class_token): encoder[OPEN_CLIP.class_token][None, None],
        names.bare(names.positions): encoder[OPEN_CLIP.positions][None],
        patches: encoder[OPEN_CLIP.patches],
        patches.removesuffix("weight") + "bias": encoder[OPEN_CLIP.patches].new_zeros(len(projection)),
    }
    modules = dict(zip(_modules(OPEN_CLIP), _modules(names), strict=True))
    tensors = {f"{ours}.{kind}": f"{theirs}.{kind}" for ours, theirs in modules.items() for kind in _KINDS}
    tensors |= dict(zip(OPEN_CLIP.scales, names.scales, strict=False))
    for key, value in encoder.items():
        index = OPEN_CLIP.block_of(key)
        if index is None:
            if key.startswith(f"{OPEN_CLIP.norm_after}."):
                renamed[names.bare(names.norm_after) + key.removeprefix(OPEN_CLIP.norm_after)] = value
            continue
        block = names.bare(names.block(index))
        if OPEN_CLIP.is_fused(key):
            kind = key.rpartition("_")[2]
            for part, name in zip(value.chunk(3), names.apart, strict=True):
                renamed[f"{block}.{name.format(kind=kind)}"] = part.contiguous()
        else:
            renamed[f"{block}.{tensors[OPEN_CLIP.within(key)]}"] = value
    return renamed


def used_of_vit(state: Mapping[str, Tensor]) -> set[str]:
    """The keys that the image encoder was made of, and those known to be of no use for it."""
    used = {key for _, _, keys in _tensors(state) for key in keys}
    return used | {key for key in state if _UNUSED.fullmatch(key)}


def _tensors(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor, tuple[str, ...]]]:
    """(open_clip's key, the tensor, the keys it is made of)."""
    names = vit_names(state)
    assert names is not None
    patches = next(key for key in state if _start(names, key, state) is not None)
    start = patches.removesuffix(names.bare(names.patches))
    at = {name: start + names.bare(key) for name, key in _outside(names).items()}
    _refuse_tokens(state, start)

    class_token = state[at["class_token"]].reshape(-1)
    yield OPEN_CLIP.class_token, class_token, (at["class_token"],)
    yield OPEN_CLIP.patches, state[patches], (patches,)
    bias = at["patches"].removesuffix("weight") + "bias"
    positions = _positions(state[at["positions"]], state.get(bias))
    yield OPEN_CLIP.positions, positions, (at["positions"], *((bias,) if bias in state else ()))
    norms = [(OPEN_CLIP.norm_after, names.norm_after)]
    norms += [(OPEN_CLIP.norm_before, names.norm_before)] if names.norm_before else []
    for ours, theirs in norms:
        for kind in _KINDS:
            if (key := f"{start}{names.bare(theirs)}.{kind}") in state:
                yield f"{ours}.{kind}", state[key], (key,)
    for index in range(_blocks(state, start + names.bare(names.blocks))):
        yield from _of_block(state, names, start + names.bare(names.block(index)), OPEN_CLIP.block(index))
    width = len(class_token)
    yield OPEN_CLIP.projection, torch.eye(width, dtype=class_token.dtype, device=class_token.device), ()


def _outside(names: Names) -> dict[str, str]:
    return {"class_token": names.class_token, "positions": names.positions, "patches": names.patches}


def _positions(given: Tensor, bias: Tensor | None) -> Tensor:
    """(1 + patches, width), the class token's first, the patch projection's bias in those of the patches."""
    positions = given.reshape(given.shape[-2:])
    return positions if bias is None else torch.cat([positions[:1], positions[1:] + bias])


def _of_block(
    state: Mapping[str, Tensor], names: Names, theirs: str, ours: str
) -> Iterator[tuple[str, Tensor, tuple[str, ...]]]:
    for their_name, our_name in zip(_modules(names), _modules(OPEN_CLIP), strict=True):
        for kind in _KINDS:
            key = f"{theirs}.{their_name}.{kind}"
            if key in state:
                yield f"{ours}.{our_name}.{kind}", state[key], (key,)
    for their_name, our_name in zip(names.scales, OPEN_CLIP.scales, strict=False):
        if (key := f"{theirs}.{their_name}") in state:
            yield f"{ours}.{our_name}", state[key], (key,)
    for kind in _KINDS:
        parts = [names.fused] if names.fused else list(names.apart)
        keys = tuple(f"{theirs}.{part.format(kind=kind)}" for part in parts)
        if all(key in state for key in keys):
            fused = torch.cat([state[key] for key in keys]) if len(keys) > 1 else state[keys[0]]
            yield f"{ours}.{OPEN_CLIP.fused.format(kind=kind)}", fused, keys


def _modules(names: Names) -> tuple[str, ...]:
    """The modules of a block that all families have alike."""
    return (*names.norms, names.attention_out, names.mlp_in, names.mlp_out)


def _blocks(state: Mapping[str, Tensor], container: str) -> int:
    pattern = re.compile(rf"{re.escape(container)}\.(\d+)\.")
    return 1 + max(int(match[1]) for key in state if (match := pattern.match(key)))


def _refuse_tokens(state: Mapping[str, Tensor], start: str) -> None:
    tokens = {"reg_token": "register tokens", "register_tokens": "register tokens"}
    tokens |= {"dist_token": "a distillation token", "distillation_token": "a distillation token"}
    for key in state:
        if (what := tokens.get(key.removeprefix(start).rpartition(".")[2])) is not None:
            raise CheckpointError(
                f"This vision transformer has {what} ({key}), for which open_clip's has no place.\n"
                "  Give a variant without, such as facebook/dinov2-small."
            )
