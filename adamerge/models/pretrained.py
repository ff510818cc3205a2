"""The pre-trained CLIP that the experts come from: its image encoder is the base, its text tower makes the heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from adamerge.checkpoints import open_checkpoint
from adamerge.errors import CheckpointError
from adamerge.models.clip import Model, build_clip, tokenizer
from adamerge.models.heads import zero_shot_head


def pretrained_state(base: str | Path, model: Model) -> dict[str, Tensor]:
    """The full state dict (both towers, open_clip keys) of a checkpoint, or of `open_clip:<tag>` such as
    `open_clip:openai`, which open_clip downloads into its cache if it is not there yet.

    Raises:
        CheckpointError: the tag is unknown or cannot be downloaded.
    """
    if not str(base).startswith("open_clip:"):
        return open_checkpoint(base).state
    import open_clip

    tag = str(base).removeprefix("open_clip:")
    if not isinstance(model, str):
        raise CheckpointError(f"checkpoints.base={base} needs an open_clip model name in backbone.model.")
    try:
        clip = open_clip.create_model(model, pretrained=tag)
    except Exception as error:  # open_clip and the hub raise many kinds; all mean the same here
        raise CheckpointError(
            f"open_clip could not load {model} with the weights '{tag}': {error}\n"
            "  Without network, put the weights in a file and set checkpoints.base=<file>."
        ) from error
    return dict(clip.state_dict())


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
