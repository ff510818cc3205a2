"""The pre-trained CLIP that the experts come from: its image encoder is the base, its text tower makes the heads."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from adamerge.checkpoints import open_checkpoint
from adamerge.checkpoints.places import RANDOM
from adamerge.errors import CheckpointError
from adamerge.models.clip import Model, build_clip, tokenizer
from adamerge.models.heads import zero_shot_head


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
        self.base = {key: value for key, value in base.items() if key.startswith("visual.")}
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
    """Whether a state dict with open_clip keys has CLIP's text transformer; without it no prompts can be encoded."""
    return "token_embedding.weight" in state and any(key.startswith("transformer.") for key in state)


def build_heads(
    state: Mapping[str, Tensor], model: Model, prompts: Mapping[str, Sequence[Sequence[str]]]
) -> dict[str, Tensor]:
    """Zero-shot heads {task: (classes, d)} from the text tower in `state`.

    Raises:
        CheckpointError: the checkpoint has an image encoder only.
    """
    if not has_text_tower(state):
        raise CheckpointError(
            "The base checkpoint has no text tower, so no zero-shot heads can be made from prompts.\n"
            "  Give a full CLIP as checkpoints.base, or head files as checkpoints.heads=<folder>/{task}.safetensors."
        )
    clip = build_clip(model, state)
    tokenize = tokenizer(model)
    return {task: zero_shot_head(clip, tokenize, texts) for task, texts in prompts.items()}
