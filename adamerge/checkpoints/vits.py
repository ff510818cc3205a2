"""Plain vision transformers, Hugging Face's ViT, DeiT and DINOv2 and timm's, under open_clip's names.

open_clip's vision transformer computes what they compute: without a norm before the blocks (`no_ln_pre`), with the
identity as projection, LayerScale as `ls_1` and `ls_2`, and the patch projection's bias, which every patch gets once
like its position, added to the position embeddings. Register tokens are rows behind the class token; where the class
token has no position of its own (timm's `no_embed_class`), its position is zero.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor

from adamerge.architecture import OPEN_CLIP, TIMM_TRUNK, VITS, Names
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
    if not (key == patches or key.endswith("." + patches)) or f".{key}".endswith(f".{TIMM_TRUNK.patches}"):
        return None  # the trunk of a CLIP is kept under its own names
    start = key.removesuffix(patches)
    first = f"{start}{names.bare(names.block(0))}.{names.mlp_in}.weight"
    told = (first, *(start + names.bare(name) for name in (names.positions, names.class_token)))
    return start if all(name in state for name in told) else None


def is_plain(encoder: Mapping[str, Tensor]) -> bool:
    """Whether an image encoder (open_clip keys) has no norm before its blocks, unlike CLIP's."""
    return OPEN_CLIP.patches in encoder and f"{OPEN_CLIP.norm_before}.weight" not in encoder


def vit_to_open_clip(state: Mapping[str, Tensor]) -> State:
    """Rename and refold a plain vision transformer's tensors to `visual.*`; others are left out.

    Raises:
        CheckpointError: it has what open_clip's vision transformer has no place for.
    """
    return {ours: value for ours, value, _ in _tensors(state)}


def vit_tensor(key: str, outline: Mapping[str, Tensor], read: Callable[[str], Tensor]) -> Tensor:
    """One tensor under open_clip's key.

    Args:
        outline: the plain vision transformer's tensors without numbers (on the meta device).
        read: one of its tensors, with numbers, by its own key.
    """
    keys = next(keys for ours, _, keys in _tensors(outline) if ours == key)
    numbers = {**outline, **{name: read(name) for name in keys}}
    return next(value for ours, value, _ in _tensors(numbers) if ours == key)


def names_in_vit(key: str, names: Names) -> tuple[str, ...]:
    """What open_clip's tensor of a block or of the last norm is called in a family: three names where query, key and
    value are apart there, none for what the family has no such tensor of, or lies before the blocks."""
    if key.startswith(f"{OPEN_CLIP.norm_after}."):
        return (names.norm_after + key.removeprefix(OPEN_CLIP.norm_after),)
    index = OPEN_CLIP.block_of(key)
    if index is None:
        return ()
    block = names.block(index)
    if OPEN_CLIP.is_fused(key):
        kind = key.rpartition("_")[2]
        parts = (names.fused,) if names.fused else names.apart
        return tuple(f"{block}.{part.format(kind=kind)}" for part in parts)
    modules = zip(_modules(OPEN_CLIP), _modules(names), strict=True)
    tensors = {f"{ours}.{kind}": f"{theirs}.{kind}" for ours, theirs in modules for kind in _KINDS}
    tensors |= dict(zip(OPEN_CLIP.scales, names.scales, strict=False))
    within = OPEN_CLIP.within(key)
    return (f"{block}.{tensors[within]}",) if within in tensors else ()


def keys_behind_positions(blocks: Iterable[int]) -> Iterator[str]:
    """open_clip's keys of such blocks and of the last norm, LayerScale's among them."""
    for index in blocks:
        for name in (*OPEN_CLIP.tensors_of_block(), *OPEN_CLIP.scales):
            yield f"{OPEN_CLIP.block(index)}.{name}"
    yield from (f"{OPEN_CLIP.norm_after}.{kind}" for kind in _KINDS)


def open_clip_to_vit(encoder: Mapping[str, Tensor], names: Names, class_position: bool = True) -> State:
    """The inverse; the patch projection's bias, which the positions hold, is zero, and with a norm before the blocks
    there is none.

    Args:
        class_position: whether the class token has a position of its own in the family, which is added to it otherwise.

    Raises:
        CheckpointError: a projection other than the identity, for which they have no place.
    """
    projection = encoder[OPEN_CLIP.projection]
    if not torch.equal(projection, torch.eye(len(projection), dtype=projection.dtype)):
        raise CheckpointError(
            "The encoder has a projection behind its last norm, for which a plain ViT has no place."
        )
    patches = names.bare(names.patches)
    token, positions = encoder[OPEN_CLIP.class_token], encoder[OPEN_CLIP.positions]
    if not class_position:
        token, positions = token + positions[0], positions[1:]
    renamed: State = {
        names.bare(names.class_token): token[None, None],
        names.bare(names.positions): positions[None].contiguous(),
        patches: encoder[OPEN_CLIP.patches],
    }
    if is_plain(encoder):
        renamed[_bias(patches)] = encoder[OPEN_CLIP.patches].new_zeros(len(projection))
    if OPEN_CLIP.registers in encoder:
        renamed[names.bare(names.registers)] = encoder[OPEN_CLIP.registers][None]
    for kind in _KINDS:
        if (key := f"{OPEN_CLIP.norm_before}.{kind}") in encoder:
            renamed[f"{names.bare(names.norm_before)}.{kind}"] = encoder[key]
    for key, value in encoder.items():
        if theirs := names_in_vit(key, names):
            parts = (part.contiguous() for part in value.chunk(len(theirs)))
            renamed |= zip(map(names.bare, theirs), parts, strict=True)
    return renamed


def used_of_vit(state: Mapping[str, Tensor]) -> set[str]:
    """The keys that the image encoder was made of, and those known to be of no use for it."""
    outline = {key: value.to("meta") for key, value in state.items()}
    used = {key for _, _, keys in _tensors(outline) for key in keys}
    return used | {key for key in state if _UNUSED.fullmatch(key)}


def _tensors(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor, tuple[str, ...]]]:
    """(open_clip's key, the tensor, the keys it is made of)."""
    names = vit_names(state)
    assert names is not None
    patches = next(key for key in state if _start(names, key, state) is not None)
    start = patches.removesuffix(names.bare(names.patches))
    _refuse_tokens(state, start)

    class_token, positions = (start + names.bare(name) for name in (names.class_token, names.positions))
    yield OPEN_CLIP.class_token, state[class_token].reshape(-1), (class_token,)
    registers = start + names.bare(names.registers)
    number = 0
    if names.registers and registers in state:
        number = state[registers].shape[-2]
        yield OPEN_CLIP.registers, state[registers].reshape(number, -1), (registers,)
    yield OPEN_CLIP.patches, state[patches], (patches,)
    bias = _bias(patches)
    made_of = (positions, bias) if bias in state else (positions,)
    yield OPEN_CLIP.positions, _positions(state[positions], state.get(bias), number), made_of
    if names.norm_before:
        for kind in _KINDS:
            if (key := f"{start}{names.bare(names.norm_before)}.{kind}") in state:
                yield f"{OPEN_CLIP.norm_before}.{kind}", state[key], (key,)
    for ours in keys_behind_positions(range(_blocks(state, start + names.bare(names.blocks)))):
        keys = tuple(start + names.bare(name) for name in names_in_vit(ours, names))
        if keys and all(key in state for key in keys):
            yield ours, torch.cat([state[key] for key in keys]) if keys[1:] else state[keys[0]], keys
    token = state[class_token]
    identity = torch.eye(token.shape[-1], dtype=token.dtype, device=token.device)
    yield OPEN_CLIP.projection, identity, (class_token,)


def _bias(patches: str) -> str:
    return patches.removesuffix("weight") + "bias"


def _positions(given: Tensor, bias: Tensor | None, registers: int = 0) -> Tensor:
    """(1 + patches, width), the class token's first, the patch projection's bias in those of the patches.

    Raises:
        CheckpointError: they are neither those of a square of patches, nor with the class token's before them.
    """
    positions = given.reshape(given.shape[-2:])
    rows = len(positions)
    if math.isqrt(rows) ** 2 == rows:
        positions = torch.cat([torch.zeros_like(positions[:1]), positions])
    elif registers and math.isqrt(rows - 1) ** 2 != rows - 1:
        raise CheckpointError(
            f"This vision transformer has {rows} positions, for {registers} register tokens beside the class token and "
            "the patches: tokens with positions of their own among the registers are not known here."
        )
    return positions if bias is None else torch.cat([positions[:1], positions[1:] + bias])


def _modules(names: Names) -> tuple[str, ...]:
    """The modules of a block that all families have alike."""
    return (*names.norms, names.attention_out, names.mlp_in, names.mlp_out)


def _blocks(state: Mapping[str, Tensor], container: str) -> int:
    pattern = re.compile(rf"{re.escape(container)}\.(\d+)\.")
    return 1 + max(int(match[1]) for key in state if (match := pattern.match(key)))


def _refuse_tokens(state: Mapping[str, Tensor], start: str) -> None:
    for key in state:
        if key.removeprefix(start).rpartition(".")[2] in ("dist_token", "distillation_token"):
            raise CheckpointError(
                f"This vision transformer has a distillation token ({key}), for which open_clip's has no place.\n"
                "  Give a variant without, such as facebook/deit-small-patch16-224."
            )
