"""Pools, weight files and images of the real shapes with random values: timings do not depend on the values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adamerge.checkpoints import save_tensors
from adamerge.checkpoints.saving import sidecar
from adamerge.merging import Head, Pool
from adamerge.models.backbone import Backbone
from adamerge.models.clip import Model, image_size


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


def random_files(folder: Path, model: Model, tasks: int) -> tuple[Path, dict[str, Path]]:
    """A base and experts beside it, in safetensors files of the benchmark's form: the image encoder in float32.

    Returns:
        The base's file, and the experts' by name. No sums lie beside them, as of files from elsewhere.
    """
    backbone = Backbone.of(model)
    generator = torch.Generator().manual_seed(0)

    def drawn(shape: torch.Size, spread: float) -> Tensor:
        return spread * torch.randn(shape, generator=generator)

    base = {
        key: torch.ones(value.shape) if backbone.names.is_gain(key) else drawn(value.shape, 0.02)
        for key, value in backbone.build().state_dict().items()
    }
    save_tensors(folder / "base.safetensors", base)
    experts = {f"task{i}": folder / f"task{i}.safetensors" for i in range(tasks)}
    for path in experts.values():
        save_tensors(path, {key: value + drawn(value.shape, 0.002) for key, value in base.items()})
    for path in (folder / "base.safetensors", *experts.values()):
        sidecar(path).unlink()
    return folder / "base.safetensors", experts


def random_images(pool: Pool, options: dict[str, Any]) -> dict[str, Tensor]:
    """A batch of normalised images per task."""
    size = image_size(options["model"])
    generator = torch.Generator().manual_seed(1)
    shape = (options["batch_size"], 3, size, size)
    return {task: torch.randn(shape, generator=generator).to(options["device"]) for task in pool.tasks}
