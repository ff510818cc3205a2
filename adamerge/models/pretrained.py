"""The pre-trained CLIP that the experts come from: its image encoder is the base, its text tower makes the heads."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from adamerge.architecture import OPEN_CLIP
from adamerge.checkpoints import compare_states, open_checkpoint
from adamerge.checkpoints.addresses import RANDOM
from adamerge.errors import CheckpointError
from adamerge.models.clip import Model, build_clip, tokenizer
from adamerge.models.heads import zero_shot_head

if TYPE_CHECKING:
    import open_clip


def pretrained_state(base: str | Path, model: Model) -> dict[str, Tensor]:
    """The full state dict (both towers, open_clip keys) of a checkpoint, or random weights for `random:<seed>`.

    Raises:
        CheckpointError: the file cannot be opened, or holds what is not understood.
    """
    if not str(base).startswith(RANDOM):
        return open_checkpoint(base).whole()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(str(base).encode()))
        return dict(build_clip(model).state_dict())


class RandomExperts(Mapping[str, dict[str, Tensor]]):
    """{task: the base's image encoder a small random step away}, each made when it is asked for.

    Args:
        base: the base's state dict.
        places: {task: what its random numbers depend on}.
    """

    def __init__(self, base: Mapping[str, Tensor], places: Mapping[str, str]) -> None:
        self.base = {key: value for key, value in base.items() if key.startswith(OPEN_CLIP.prefix)}
        self.places = places

    def __getitem__(self, task: str) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(zlib.crc32(self.places[task].encode()))
        return {
            key: value
            + 0.01 * value.std(correction=0).clamp(min=0.01) * torch.randn(value.shape, generator=generator)
            for key, value in self.base.items()
        }

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def has_text_tower(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict with open_clip keys has CLIP's text transformer; without it no prompts can be encoded.

    open_clip has it at the top, or below `text.` where the text tower is a module of its own (SigLIP).
    """
    top = "token_embedding.weight" in state and any(key.startswith("transformer.") for key in state)
    return top or any(key.startswith("text.transformer.") for key in state)


def build_heads(
    state: Mapping[str, Tensor],
    model: Model,
    prompts: Mapping[str, Sequence[Sequence[str]]],
    fetch: bool = False,
) -> dict[str, Tensor]:
    """Zero-shot heads {task: (classes, d)} from the text tower in `state`.

    SigLIP's logit bias is one number for all classes, which changes no probability of a softmax: heads go without it.

    Args:
        fetch: a tokenizer that is not in the hub's cache is fetched.

    Raises:
        CheckpointError: the checkpoint has an image encoder only, or a text tower that is not the backbone's; or the
            tokenizer is not there.
    """
    if not has_text_tower(state):
        raise CheckpointError(
            "The base checkpoint has no text tower, so no zero-shot heads can be made from prompts.\n"
            "  Give a full CLIP as checkpoints.base, or head files as checkpoints.heads=<folder>/{task}.safetensors."
        )
    tokenize = tokenizer(model, fetch)
    clip = _text_tower(state, model)
    return {task: zero_shot_head(clip, tokenize, texts) for task, texts in prompts.items()}


def _text_tower(state: Mapping[str, Tensor], model: Model) -> open_clip.CLIP:
    """A CLIP with the text tower in `state`; its vision tower, of whatever image size, is of no use for heads."""
    clip = build_clip(model)
    expected = {
        key: value for key, value in clip.state_dict().items() if not key.startswith(OPEN_CLIP.prefix)
    }
    text = {key: value.float() for key, value in state.items() if not key.startswith(OPEN_CLIP.prefix)}
    if wrong := [d for d in compare_states(expected, text) if d.expected is not None]:
        first = wrong[0]
        raise CheckpointError(
            f"The text tower is not that of the backbone: {len(wrong)} tensors are missing or of another shape, e.g. "
            f"{first.key} {first.found or ''}, expected {first.expected}.\n"
            "  Set the backbone's text_cfg as the checkpoint has it, or give head files as "
            "checkpoints.heads=<folder>/{task}.safetensors."
        )
    clip.load_state_dict(text, strict=False)
    return clip
