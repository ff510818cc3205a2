"""The weight files: there, whole, of the backbone's architecture, different from each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from adamerge.architecture import OPEN_CLIP
from adamerge.checkpoints import Checkpoint, compare_states, describe_misfits, open_checkpoint
from adamerge.checkpoints.addresses import RANDOM
from adamerge.checkpoints.heads import LEFT_OPEN, SETTLED_BY, leaves_open
from adamerge.checkpoints.saving import sidecar, weight_files
from adamerge.checkpoints.weight_files import split_part
from adamerge.diagnosis.findings import Finding
from adamerge.errors import CheckpointError, PoolError
from adamerge.models.backbone import Backbone
from adamerge.models.clip import Model
from adamerge.models.heads import head_fault
from adamerge.models.kinship import ADVICE, kinship
from adamerge.models.likeness import Lookalikes
from adamerge.models.positions import resized
from adamerge.models.pretrained import has_text_tower, pretrained_state

_NO_TEXT = (
    "Give a whole CLIP as checkpoints.base, or head files as checkpoints.heads=<folder>/{task}.safetensors."
)


def base_file(
    path: str,
    model: Model,
    needs_text: bool,
    seen: Lookalikes,
    origin: dict[str, Tensor],
    resize: bool = False,
) -> Iterator[Finding]:
    """The base model.

    Args:
        needs_text: heads are made from prompts, which takes its text tower.
        seen: the models looked at before, among which it is from now on.
        origin: gets its tensors.
        resize: positions of another image size are brought to the backbone's.
    """
    if path.startswith(RANDOM):
        yield Finding("ok", "base", f"{path}: random weights")
        return
    checkpoint = _opened(path, "checkpoints.base=<file>", "pretrain")
    state = _at_size(checkpoint.image_encoder(), model, resize)
    _fits(path, state, Backbone.of(model).shapes())
    seen.like("base", state)
    origin |= state
    if needs_text and not has_text_tower(pretrained_state(path, model)):
        yield Finding("problem", "base", f"{path} has no text tower, so no heads can be made", _NO_TEXT)
        return
    yield Finding("ok", "base", f"{path}: {checkpoint.format}, {checkpoint.keys} names, {_sums(path)}")


def text_file(path: str, model: Model) -> Iterator[Finding]:
    """The CLIP whose text tower makes the heads."""
    if not has_text_tower(pretrained_state(path, model)):
        yield Finding("problem", "text", f"{path} has no text tower, so no heads can be made", _NO_TEXT)
    else:
        yield Finding("ok", "text", f"{path}: {_sums(path)}")


def expert_file(
    task: str,
    path: str,
    model: Model,
    seen: Lookalikes,
    origin: Mapping[str, Tensor],
    resize: bool = False,
    base: str = "",
    head_is_used: bool = False,
) -> Iterator[Finding]:
    """One expert against the backbone, the base and the other models.

    Args:
        base: where the base lies.
        head_is_used: its file is that of the task's head too.
        seen: the models looked at before, among which it is from now on.
        origin: the base's tensors; empty where the base has none that fit.
    """
    what = f"expert {task}"
    if path.startswith(RANDOM):
        yield Finding("ok", what, f"{path}: random weights")
        return
    checkpoint = _opened(path, "checkpoints.experts='<folder>/{task}.safetensors'", "finetune")
    if checkpoint.lora is not None and not origin:
        raise CheckpointError(f"{path} is a LoRA, which cannot be looked at before its base is right")
    expected, whole = Backbone.of(model).shapes(), checkpoint.on(origin, base)
    state = _at_size(whole.image_encoder(head_is_used), model, resize)
    if OPEN_CLIP.projection not in state:  # the base's is used then
        expected.pop(OPEN_CLIP.projection, None)
    _fits(path, state, expected)
    if (twin := seen.like(what, state)) is not None:
        yield Finding("warning", what, f"{path} has the content of the {twin}", "Is it the right file?")
        return
    found = kinship(origin, state)
    if found.doubt:
        yield Finding("warning", what, f"{path}: {found.doubt}", ADVICE)
        return
    moved = f", moved by {found.distance:.2f} of the base's norm" if origin else ""
    yield Finding("ok", what, f"{path}: {checkpoint.format}, {checkpoint.keys} names, {_sums(path)}{moved}")


def head_file(
    task: str,
    path: str,
    model: Model,
    check_rows: Callable[[int], None] = lambda rows: None,
    normalize: bool | None = None,
) -> Iterator[Finding]:
    """One head file against the backbone's embedding, and its rows against the data's classes."""
    checkpoint = open_checkpoint(path)
    head = checkpoint.head(normalize)
    if fault := head_fault(head, Backbone.of(model).embed_dim):
        yield Finding("problem", f"head {task}", f"{path}: {fault}", "Give the head made for this backbone.")
        return
    check_rows(head.classes)
    said = ["with bias" if head.bias is not None else "no bias"]
    said += [] if head.normalize else ["features not normalised"]
    text = f"{path}: {head.classes} classes, {', '.join(said)}, {_sums(path)}"
    if normalize is None and leaves_open(checkpoint.state, head):
        yield Finding("warning", f"head {task}", f"{text}; {LEFT_OPEN}", SETTLED_BY)
        return
    yield Finding("ok", f"head {task}", text)


def _opened(path: str, option: str, maker: str) -> Checkpoint:
    if not Path(split_part(path)[0]).expanduser().exists():
        raise CheckpointError(
            f"there is nothing at {path}\nGive {option}, or make it from labeled data: python -m adamerge {maker}."
        )
    return open_checkpoint(path)


def _at_size(state: dict[str, Tensor], model: Model, resize: bool) -> dict[str, Tensor]:
    return resized(state, Backbone.of(model).build()) if resize else state


def _fits(path: str, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    if differences := compare_states(expected, state):
        shapes = {OPEN_CLIP.projection: torch.empty(0, 0, device="meta"), **expected}
        raise PoolError(describe_misfits({path: (differences, state)}, shapes, "the backbone"))


def _sums(path: str) -> str:
    """What the sha256 beside the files says; opening has compared it."""
    files = weight_files(Path(path).expanduser())
    beside = sum(sidecar(file).exists() for file in files)
    return "sha256 right" if beside == len(files) else "no sha256 beside it"
