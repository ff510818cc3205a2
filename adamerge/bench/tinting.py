"""An update of Tinting (one task, coefficients and head) against scaled tensors added under autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from adamerge.bench.adamerging import naive_merge
from adamerge.bench.harness import Step
from adamerge.bench.random_pool import random_images, random_pool
from adamerge.methods.static import experts
from adamerge.methods.tinting import Tinting

VARIANTS = ("adamerge, labels recorded", "naive, the teacher computed in every update")


def build(variant: str, options: dict[str, Any]) -> Step:
    """The update of the first task; returns the loss before it."""
    pool = random_pool(options)
    method = Tinting(pool).to(options["device"])
    task, images = next(iter(random_images(pool, options).items()))
    teacher = experts(pool)

    @torch.no_grad()
    def labels() -> Tensor:
        return teacher.logits(images, task).argmax(dim=-1)

    recorded = labels()
    losses: dict[str, Callable[[], Tensor]] = {
        VARIANTS[0]: lambda: _ours(method, images, task, recorded),
        VARIANTS[1]: lambda: _naive(method, images, task, labels()),
    }
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-2)

    def step() -> float:
        optimizer.zero_grad()
        loss = losses[variant]()
        optimizer.step()
        return loss.item()

    return step


def _ours(method: Tinting, images: Tensor, task: str, labels: Tensor) -> Tensor:
    with method.merged_once() as merged:
        loss = cross_entropy(method.logits(images, task), labels)
        loss.backward()
        merged.contract_gradient()
    return loss.detach()


def _naive(method: Tinting, images: Tensor, task: str, labels: Tensor) -> Tensor:
    features = functional_call(method.pool.encoder, naive_merge(method), (images,))
    loss = cross_entropy(method.classify(features, task), labels)
    loss.backward()
    return loss.detach()


def floor(options: dict[str, Any]) -> tuple[float, float]:
    """The least work of an update: a pass and its gradient; the task vectors read twice."""
    pool = random_pool({**options, "tasks": 1})
    task, images = next(iter(random_images(pool, {**options, "batch_size": 1}).items()))
    with FlopCounterMode(display=False) as counter:
        _ours(Tinting(pool), images, task, torch.zeros(1, dtype=torch.long, device=images.device))
    elements = sum(stack.shape[1] for stack in pool.vectors.values())
    width = torch.empty((), dtype=options["dtype"]).element_size()
    return counter.get_total_flops() * options["batch_size"], elements * (
        2 * options["tasks"] * width + 3 * 4
    )
