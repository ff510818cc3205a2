"""Heads from labeled training pictures, `checkpoints.heads: prototypes` or `ridge`: they take no text tower."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from adamerge.cache_folder import cache_dir
from adamerge.checkpoints import open_checkpoint
from adamerge.checkpoints.cached import cached
from adamerge.checkpoints.heads import tensors_of_head
from adamerge.errors import DataError
from adamerge.merging import Head
from adamerge.models.clip import ImageEncoder
from adamerge.models.probes import prototypes, ridge
from adamerge.progress import image_progress
from adamerge.runs.backbones import base_encoder, device_of, fit_for
from adamerge.settings.commands import PoolSettings
from adamerge.settings.sections import OF_PICTURES, PROTOTYPES, RIDGE
from adamerge.tasks.images import ImageSet
from adamerge.tasks.picture import READING
from adamerge.tasks.subsets import PictureSubset
from adamerge.tasks.task import Task

_MAKERS = {PROTOTYPES: prototypes, RIDGE: ridge}


def from_pictures(settings: PoolSettings) -> bool:
    """Whether the heads are made from labeled training pictures."""
    return settings.checkpoints.heads in OF_PICTURES


def picture_heads(settings: PoolSettings, tasks: list[Task], base: str, base_id: str) -> dict[str, Head]:
    """Each task's head of its training pictures as the base sees them, cached on disk.

    Raises:
        DataError: a task without labeled training pictures, or a class without one.
    """
    encoder: list[ImageEncoder] = []

    def make(task: Task) -> dict[str, Tensor]:
        if not encoder:
            found = base_encoder(settings.backbone, open_checkpoint(base).image_encoder())
            encoder.append(found.to(device_of(settings.trainer)).eval())
        return tensors_of_head(_head_of(settings, task, encoder[0]))

    folder = cache_dir() / "heads"
    made = {
        task.name: cached(folder, _made_from(settings, task, base_id), partial(make, task)) for task in tasks
    }
    return {task: Head(tensors["weight"], tensors.get("bias")) for task, tensors in made.items()}


def _made_from(settings: PoolSettings, task: Task, base_id: str) -> Mapping[str, Any]:
    return {
        "kind": settings.checkpoints.heads,
        "base": base_id,
        "backbone": settings.backbone.model_dump(exclude={"summary"}),
        "pictures": task.source.identity("train"),
        "reading": READING,
        "shots": settings.checkpoints.shots,
    }


@torch.no_grad()
def _head_of(settings: PoolSettings, task: Task, encoder: ImageEncoder) -> Head:
    labels = task.source.labels("train")
    if labels is None:
        raise DataError(
            f"Task '{task.name}' has no labeled training pictures, of which "
            f"checkpoints.heads={settings.checkpoints.heads} makes its head.\n"
            "  Give head files as checkpoints.heads=<folder>/{task}.safetensors."
        )
    names = task.classes if task.classes is not None else task.source.class_names
    classes = len(names) if names is not None else int(labels.max()) + 1
    chosen = _shots(torch.as_tensor(labels), settings.checkpoints.shots, task.name)
    pictures = PictureSubset(task.source.images("train"), chosen.numpy())
    images = ImageSet(pictures, fit_for(settings.backbone), task=task.name)
    device = next(encoder.parameters()).device
    features = []
    with image_progress(f"{settings.checkpoints.heads} of {task.name}", {task.name: images}) as progress:
        for pixels in images.batches(settings.evaluation.batch_size):
            features.append(encoder(pixels.to(device)).float().cpu())
            progress(len(pixels))
    try:
        make = _MAKERS[str(settings.checkpoints.heads)]
        return make(torch.cat(features), torch.as_tensor(labels)[chosen], classes)
    except DataError as error:
        raise DataError(f"Task '{task.name}': {error}") from error


def _shots(labels: Tensor, count: int | None, task: str) -> Tensor:
    """The numbers of the pictures that are used: all, or `count` of each class, the same whatever a run's seed."""
    if count is None:
        return torch.arange(len(labels))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(zlib.crc32(task.encode())))
    ranks = torch.empty_like(labels)
    for value in labels.unique():
        members = order[labels[order] == value]
        ranks[members] = torch.arange(len(members))
    return (ranks < count).nonzero().flatten()
