"""The memory that a run takes, from shapes alone: everything is on the meta device, which has no storage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call

from adamerge.diagnosis.findings import Finding
from adamerge.memory import free_memory_bytes
from adamerge.merging import Head, Pool
from adamerge.merging.quantised import BITS, bytes_of
from adamerge.models.backbone import Backbone
from adamerge.models.clip import Model, image_size
from adamerge.report.names import memory
from adamerge.runs.backbones import model_of
from adamerge.settings import instantiate
from adamerge.settings.commands import RunSettings

_CLASSES = 100  # of a task, where only heads' sizes are at stake
_FLOAT = 4


@dataclass(frozen=True)
class Need:
    """Bytes.

    Attributes:
        base: the base encoder.
        expert: one expert, while its task vector is formed.
        vectors: the task vectors.
        merged: one merged copy of the encoder.
        gradient: the gradient of the merged copy.
        trained: the method's own parameters, with their gradient and two moments of the optimiser.
        activations: what a pass keeps: for the backward, or of one block where nothing is trained.
    """

    base: int
    expert: int
    vectors: int
    merged: int
    gradient: int
    trained: int
    activations: int

    @property
    def to_open(self) -> int:
        return self.base + self.expert + self.vectors

    @property
    def to_run(self) -> int:
        return self.base + self.vectors + self.merged + self.gradient + self.trained + self.activations


def memory_need(settings: RunSettings) -> Need:
    """What a run of this config takes at least; libraries and the images come on top."""
    model, tasks = model_of(settings.backbone), list(settings.suite.tasks)
    dtype = getattr(torch, settings.checkpoints.dtype)
    pool = meta_pool(model, tasks, torch.float32 if dtype in BITS else dtype)
    size = sum(value.numel() for value in pool.base.values())
    schedule = settings.method.schedule
    per_image, blocks = activation_bytes(pool, image_size(model)), pool.backbone.blocks
    evaluating = per_image * settings.evaluation.batch_size // blocks
    if settings.activation_checkpointing:  # every block's input, and all of one block
        per_image = blocks * pool.backbone.tokens * pool.backbone.width * _FLOAT + per_image // blocks
    adapting = 0
    if schedule is not None:
        whole = schedule.batch_size * schedule.batches_per_task * len(tasks)
        adapting = per_image * min(max(schedule.forward_images or 0, schedule.batch_size), whole)
    return Need(
        base=_FLOAT * size,
        expert=_FLOAT * size,
        vectors=bytes_of(dtype, size * len(tasks)),
        merged=_FLOAT * size,
        gradient=0 if schedule is None else _FLOAT * size,
        trained=4 * _FLOAT * trained_parameters(settings.method.model, pool),
        activations=max(evaluating, adapting),
    )


def meta_pool(model: Model, tasks: Sequence[str], dtype: torch.dtype) -> Pool:
    """A pool of the right shapes without storage."""
    backbone = Backbone.of(model)
    encoder = backbone.build()
    base = dict(encoder.state_dict())
    vectors = {
        key: torch.empty(len(tasks), value.numel(), dtype=dtype, device="meta") for key, value in base.items()
    }
    heads = {task: Head(torch.empty(_CLASSES, backbone.embed_dim, device="meta")) for task in tasks}
    return Pool(encoder, base, vectors, tuple(tasks), heads)


def trained_parameters(node: Any, pool: Pool) -> int:
    """How many numbers the method trains."""
    with torch.device("meta"):
        method = instantiate(node, pool)
    return int(method.trainable_count())


def activation_bytes(pool: Pool, size: int) -> int:
    """Bytes that a forward pass keeps for its backward, per image; the encoder's own tensors do not count."""
    parameters = {key: value.detach().requires_grad_() for key, value in pool.base.items()}
    own = {value.untyped_storage()._cdata for value in parameters.values()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    images = torch.empty(2, 3, size, size, device="meta")
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        functional_call(pool.encoder, parameters, (images,))
    return sum(t.untyped_storage().nbytes() for place, t in kept.items() if place not in own) // len(images)


def enough(need: Need, device: torch.device) -> Iterator[Finding]:
    """The need against what is free: to open the checkpoints, and to run on the device."""
    cpu = torch.device("cpu")
    opened = _parts({"base": need.base, "one expert": need.expert, "task vectors": need.vectors})
    yield _compare("memory to open", need.to_open, opened, cpu)
    running = _parts(
        {
            "base": need.base,
            "task vectors": need.vectors,
            "merged copy": need.merged,
            "its gradient": need.gradient,
            "trained parts": need.trained,
            "activations": need.activations,
        }
    )
    yield _compare("memory to run", need.to_run, running, device)


def _parts(parts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {memory(size)}" for name, size in parts.items())


def _compare(what: str, need: int, made_of: str, device: torch.device) -> Finding:
    free = free_memory_bytes(device)
    text = f"about {memory(need)} ({made_of})"
    if free is None:
        return Finding("warning", what, f"{text}; what is free is not known", "Watch the first steps.")
    text += f"; {memory(free)} free on {device.type}"
    advice = (
        "checkpoints.dtype=bfloat16 halves the task vectors, int8, int4 and int3 leave a quarter, an eighth and a "
        "tenth of them; activation_checkpointing=true takes most of the "
        "activations away; fewer tasks, a smaller method.schedule.batch_size or evaluation.batch_size, or a larger "
        "machine help."
    )
    if need > free:
        return Finding("problem", what, text, advice)
    return Finding("warning", what, text, advice) if need > 0.8 * free else Finding("ok", what, text)
