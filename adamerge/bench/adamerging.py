"""A step of layer-wise AdaMerging: one merge and a contraction, against scaled tensors added under autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from adamerge.bench.harness import Step
from adamerge.bench.random_pool import random_images, random_pool
from adamerge.methods.adamerging import AdaMerging
from adamerge.methods.with_coefficients import WithCoefficients
from adamerge.objectives.entropy import entropy

VARIANTS = ("adamerge", "naive, a backward per task", "naive, one joint graph")


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
    with method.merged_once() as merged:
        for task, pixels in images.items():
            loss = entropy(method.logits(pixels, task)).mean()
            loss.backward()
            total += loss.item()
        merged.contract_gradient()
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
    features = functional_call(method.pool.encoder, naive_merge(method), (pixels,))
    return entropy(method.classify(features, task)).mean()


def naive_merge(method: WithCoefficients) -> dict[str, Tensor]:
    """Scaled task vectors added one by one under autograd."""
    pool = method.pool
    assert method.merging is not None
    clamped = method.merging.values.clamp(0, 1)
    theta = {}
    for row, (key, stack) in enumerate(pool.vectors.items()):
        scaled = [clamped[row, k] * stack[k].view(pool.base[key].shape) for k in range(len(stack))]
        theta[key] = pool.base[key] + sum(scaled)
    return theta


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
