"""Pools and images of the real shapes with random values: timings do not depend on the values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adamerge.merging import Head, Pool
from adamerge.models.backbone import Backbone
from adamerge.models.clip import image_size


def random_pool(options: dict[str, Any]) -> Pool:
    """A pool of options["tasks"] experts on options["device"]."""
    torch.manual_seed(0)
    backbone = Backbone.of(options["model"])
    encoder = backbone.build()
    device = torch.device(options["device"])
    # The scale of a default initialisation keeps the activations in range.
    base = {
        key: torch.ones(value.shape, device=device)
        if backbone.names.is_gain(key)
        else 0.02 * torch.randn(value.shape, device=device)
        for key, value in encoder.state_dict().items()
    }
    tasks = tuple(f"task{i}" for i in range(options["tasks"]))
    vectors = {
        key: torch.empty(len(tasks), value.numel(), device=device, dtype=options["dtype"]).normal_(std=0.002)
        for key, value in base.items()
    }
    width = backbone.embed_dim
    heads = {
        task: Head(10 * torch.randn(options["classes"], width, device=device) / width**0.5) for task in tasks
    }
    return Pool(encoder, base, vectors, tasks, heads)


def random_images(pool: Pool, options: dict[str, Any]) -> dict[str, Tensor]:
    """A batch of normalised images per task."""
    size = image_size(options["model"])
    generator = torch.Generator().manual_seed(1)
    shape = (options["batch_size"], 3, size, size)
    return {task: torch.randn(shape, generator=generator).to(options["device"]) for task in pool.tasks}
