"""Labeled training batches: for making base models and experts, and for the methods that are given some labels.

Test-time adaptation never uses this file.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample
from torch.utils.data import Dataset

from adamerge.errors import DataError
from adamerge.picture_fit import Fit
from adamerge.tasks.images import ImageSet
from adamerge.tasks.stream import Stream
from adamerge.tasks.subsets import PictureSubset
from adamerge.tasks.task import Task


class Captioned(Dataset[tuple[Tensor, list[str], Tensor]]):
    """Images with captions for contrastive pre-training: step -> (pixels, captions, caption of each image).

    Every task gives the same number of images. Each class in the batch has one caption, from one of its templates
    at random, so that no image has two right captions.
    """

    def __init__(self, tasks: Sequence[Task], batch_size: int, steps: int, size: int, seed: int) -> None:
        self.tasks = tasks
        self.per_task = max(1, batch_size // len(tasks))
        self.steps = steps
        self.size = size
        self.seed = seed

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> tuple[Tensor, list[str], Tensor]:
        pixels: list[np.ndarray] = []
        captions: list[str] = []
        targets: list[np.ndarray] = []
        for task in self.tasks:
            rng = np.random.default_rng([self.seed, zlib.crc32(task.name.encode()), step])
            images, labels = task.source.pretraining_batch(self.per_task, rng, self.size)
            present, inverse = np.unique(labels, return_inverse=True)
            prompts = task.prompts()
            targets.append(inverse + len(captions))
            captions += [prompts[label][rng.integers(len(prompts[label]))] for label in present]
            pixels.append(np.asarray(images))
        stacked = torch.from_numpy(np.concatenate(pixels)).permute(0, 3, 1, 2)
        return stacked, captions, torch.from_numpy(np.concatenate(targets))


class Labeled(Dataset[tuple[Tensor, Tensor]]):
    """A task's training images in shuffled epochs: step -> (pixels (n, 3, S, S), labels (n,)).

    Args:
        crop: smallest share of the area that a random resized crop keeps; 1 is no augmentation.
        shuffle: seed of a permutation of the classes, which makes an expert of no use for the task.
    """

    def __init__(
        self,
        task: Task,
        images: ImageSet,
        batch_size: int,
        steps: int,
        seed: int,
        crop: float,
        shuffle: int | None = None,
    ) -> None:
        labels = task.source.labels("train")
        if labels is None:
            raise DataError(
                f"Task '{task.name}' has no training labels; an expert cannot be made without them."
            )
        self.name = task.name
        self.labels = torch.as_tensor(labels)
        if shuffle is not None:
            classes = int(self.labels.max()) + 1
            order = torch.randperm(classes, generator=torch.Generator().manual_seed(shuffle))
            self.labels = order[self.labels]
        self.stream = Stream(
            {task.name: images}, min(batch_size, len(images)), steps, seed, feed="persistent"
        )
        self.seed = seed
        self.crop = crop

    def __len__(self) -> int:
        return len(self.stream)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        pixels = self.stream[step][self.name]
        if self.crop < 1.0:
            generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed}/{self.name}/{step}".encode()))
            pixels = random_resized_crop(pixels, self.crop, generator)
        return pixels, self.labels[self.stream.indices(self.name, step)]


class LabeledStream(Dataset[dict[str, dict[str, Any]]]):
    """A stream of training images with their labels: step -> {task: {"images", "target": (labels (n,),)}}."""

    def __init__(self, stream: Stream, labels: Mapping[str, Tensor]) -> None:
        self.stream = stream
        self.labels = labels

    def __len__(self) -> int:
        return len(self.stream)

    def __getitem__(self, step: int) -> dict[str, dict[str, Any]]:
        return {
            task: {"images": pixels, "target": (self.labels[task][self.stream.indices(task, step)],)}
            for task, pixels in self.stream[step].items()
        }


def labeled_subset(task: Task, count: int, seed: int, fit: Fit | int, method: str) -> tuple[ImageSet, Tensor]:
    """`count` training images of a task, drawn at random, and their labels (count,).

    Raises:
        DataError: a task without training labels, named with the method that needs them.
    """
    try:
        pictures, labels = task.source.images("train"), task.source.labels("train")
    except DataError as error:
        raise DataError(f"{method} needs {count} labeled training images per task. {error}") from error
    if labels is None:
        raise DataError(
            f"{method} needs {count} labeled training images per task; task '{task.name}' has no labels.\n"
            "  Choose a method that needs none (`show methods`), or leave the task out of suite.tasks."
        )
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{task.name}/labeled".encode()))
    chosen = torch.randperm(len(labels), generator=generator)[:count]
    images = ImageSet(PictureSubset(pictures, chosen.numpy()), fit, task=task.name)
    return images, torch.as_tensor(labels)[chosen]


def random_resized_crop(pixels: Tensor, smallest: float, generator: torch.Generator) -> Tensor:
    """A random box of each image, `smallest` to 1 of its area and 3/4 to 4/3 in shape, at the old size."""
    count = len(pixels)
    area = torch.empty(count).uniform_(smallest, 1.0, generator=generator)
    ratio = torch.empty(count).uniform_(np.log(3 / 4), np.log(4 / 3), generator=generator).exp()
    width = (area * ratio).sqrt().clamp(max=1.0)
    height = (area / ratio).sqrt().clamp(max=1.0)
    offset = torch.empty(2, count).uniform_(-1.0, 1.0, generator=generator)
    boxes = torch.zeros(count, 2, 3)
    boxes[:, 0, 0], boxes[:, 0, 2] = width, offset[0] * (1 - width)
    boxes[:, 1, 1], boxes[:, 1, 2] = height, offset[1] * (1 - height)
    grid = affine_grid(boxes, list(pixels.shape), align_corners=False)
    cropped = grid_sample(
        pixels.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return cropped.round().clamp(0, 255).to(torch.uint8)
