"""Heads from labeled training pictures: `checkpoints.heads: prototypes`, for encoders without a text tower."""

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
from adamerge.errors import DataError
from adamerge.models.clip import ImageEncoder
from adamerge.models.probes import prototypes
from adamerge.progress import image_progress
from adamerge.runs.backbones import base_encoder, device_of, fit_for
from adamerge.settings.commands import PoolSettings
from adamerge.settings.sections import PROTOTYPES
from adamerge.tasks.images import ImageSet
from adamerge.tasks.picture import READING
from adamerge.tasks.subsets import PictureSubset
from adamerge.tasks.task import Task


def from_pictures(settings: PoolSettings) -> bool:
    """Whether the heads are made from labeled training pictures."""
    return settings.checkpoints.heads == PROTOTYPES


def picture_heads(settings: PoolSettings, tasks: list[Task], base: str, base_id: str) -> dict[str, Tensor]:
    """Each task's head of its training pictures as the base sees them, cached on disk.

    Raises:
        DataError: a task without labeled training pictures, or a class without one.
    """
    encoder: list[ImageEncoder] = []

    def make(task: Task) -> dict[str, Tensor]:
        if not encoder:
            found = base_encoder(settings.backbone, open_checkpoint(base).image_encoder())
            encoder.append(found.to(device_of(settings.trainer)).eval())
        return {"weight": _head_of(settings, task, encoder[0])}

    folder = cache_dir() / "heads"
    made = {
        task.name: cached(folder, _made_from(settings, task, base_id), partial(make, task)) for task in tasks
    }
    return {task: tensors["weight"] for task, tensors in made.items()}


def _made_from(settings: PoolSettings, task: Task, base_id: str) -> Mapping[str, Any]:
    return {
        "kind": PROTOTYPES,
        "base": base_id,
        "backbone": settings.backbone.model_dump(exclude={"summary"}),
        "pictures": task.source.identity("train"),
        "reading": READING,
        "shots": settings.checkpoints.shots,
    }


@torch.no_grad()
def _head_of(settings: PoolSettings, task: Task, encoder: ImageEncoder) -> Tensor:
    labels = task.source.labels("train")
    if labels is None:
        raise DataError(
            f"Task '{task.name}' has no labeled training pictures, of which checkpoints.heads={PROTOTYPES} makes its "
            "head.\n  Give head files as checkpoints.heads=<folder>/{task}.safetensors."
        )
    names = task.classes if task.classes is not None else task.source.class_names
    classes = len(names) if names is not None else int(labels.max()) + 1
    chosen = _shots(torch.as_tensor(labels), settings.checkpoints.shots, task.name)
    pictures = PictureSubset(task.source.images("train"), chosen.numpy())
    images = ImageSet(pictures, fit_for(settings.backbone), task=task.name)
    device = next(encoder.parameters()).device
    features = []
    with image_progress(f"prototypes of {task.name}", {task.name: images}) as progress:
        for pixels in images.batches(settings.evaluation.batch_size):
            features.append(encoder(pixels.to(device)).float().cpu())
            progress(len(pixels))
    try:
        return prototypes(torch.cat(features), torch.as_tensor(labels)[chosen], classes).weight
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
