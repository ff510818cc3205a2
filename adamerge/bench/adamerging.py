"""A step of layer-wise AdaMerging: one merge and a contraction, against scaled tensors added under autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from adamerge.bench.harness import Step
from adamerge.losses import entropy
from adamerge.merging import Pool
from adamerge.methods import AdaMerging
from adamerge.models.clip import image_encoder, image_size

VARIANTS = ("adamerge", "naive, a backward per task", "naive, one joint graph")


def random_pool(options: dict[str, Any]) -> Pool:
    """A pool of the real shapes with random weights: timings do not depend on the values."""
    torch.manual_seed(0)
    encoder = image_encoder(options["model"])
    device = torch.device(options["device"])
    # The scale of a default initialisation keeps the activations in range.
    base = {
        key: torch.ones(value.shape, device=device)
        if key.endswith(("ln_1.weight", "ln_2.weight", "ln_pre.weight", "ln_post.weight"))
        else 0.02 * torch.randn(value.shape, device=device)
        for key, value in encoder.state_dict().items()
    }
    tasks = tuple(f"task{i}" for i in range(options["tasks"]))
    vectors = {
        key: torch.empty(len(tasks), value.numel(), device=device, dtype=options["dtype"]).normal_(std=0.002)
        for key, value in base.items()
    }
    width = base["visual.proj"].shape[1]
    heads = {task: 10 * torch.randn(options["classes"], width, device=device) / width**0.5 for task in tasks}
    return Pool(encoder, base, vectors, tasks, heads)


def random_images(pool: Pool, options: dict[str, Any]) -> dict[str, Tensor]:
    size = image_size(options["model"])
    generator = torch.Generator().manual_seed(1)
    shape = (options["batch_size"], 3, size, size)
    return {task: torch.randn(shape, generator=generator).to(options["device"]) for task in pool.tasks}


def build(variant: str, options: dict[str, Any]) -> Step:
    """One joint update of all tasks; returns the loss before it, by which the variants are compared."""
    pool = random_pool(options)
    method = AdaMerging(pool, "layer", start=0.3).to(options["device"])
    images = random_images(pool, options)
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-3)
    losses = dict(zip(VARIANTS, (_ours, _naive_per_task, _naive_joint), strict=True))[variant]

    def step() -> float:
        optimizer.zero_grad()
        loss = losses(method, images)
        optimizer.step()
        return loss

    return step


def _ours(method: AdaMerging, images: dict[str, Tensor]) -> float:
    total = 0.0
    with method.round() as merged:
        for task, pixels in images.items():
            loss = entropy(method.logits(pixels, task)).mean()
            loss.backward()
            total += loss.item()
        merged.pull()
    return total


def _naive_joint(method: AdaMerging, images: dict[str, Tensor]) -> float:
    """The reference's way: every forward adds the scaled task vectors under autograd, one backward for all."""
    total = torch.stack([_naive_loss(method, pixels, task) for task, pixels in images.items()]).sum()
    total.backward()
    return total.item()


def _naive_per_task(method: AdaMerging, images: dict[str, Tensor]) -> float:
    """The same with a backward after each task, which frees its graph."""
    total = 0.0
    for task, pixels in images.items():
        loss = _naive_loss(method, pixels, task)
        loss.backward()
        total += loss.item()
    return total


def _naive_loss(method: AdaMerging, pixels: Tensor, task: str) -> Tensor:
    pool = method.pool
    clamped = method.merging.values.clamp(0, 1)
    theta = {}
    for row, (key, stack) in enumerate(pool.vectors.items()):
        scaled = [clamped[row, k] * stack[k].view(pool.base[key].shape) for k in range(len(stack))]
        theta[key] = pool.base[key] + sum(scaled)
    features = functional_call(pool.encoder, theta, (pixels,))
    return entropy(method.classify(features, task)).mean()


def floor(options: dict[str, Any]) -> tuple[float, float]:
    """The least work of a step: (floating-point operations, bytes of the merge and the contraction).

    Operations: counted over forward and backward of every batch. Bytes: the task vectors are read once to merge and
    once to contract, the base read once, the merged tensors written once and their gradient read once.
    """
    pool = random_pool({**options, "tasks": 1})
    method = AdaMerging(pool)
    images = random_images(pool, {**options, "batch_size": 1})
    with FlopCounterMode(display=False) as counter:
        _ours(method, images)
    operations = counter.get_total_flops() * options["batch_size"] * options["tasks"]
    elements = sum(stack.shape[1] for stack in pool.vectors.values())
    width = torch.empty((), dtype=options["dtype"]).element_size()
    return operations, elements * (2 * options["tasks"] * width + 3 * 4)
