"""A step of WEMoE on one batch: mixed weights, mixed outputs, or a loop over the images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.utils.flop_counter import FlopCounterMode

from adamerge.bench.harness import Step
from adamerge.bench.random_pool import random_images, random_pool
from adamerge.merging import Pool
from adamerge.merging.mixing import Mode, mixed_linear
from adamerge.methods.wemoe import WEMoE
from adamerge.objectives.entropy import entropy

VARIANTS = ("adamerge, as counted", "mixing the weights", "mixing the outputs", "a loop over the images")
_MODES: dict[str, Mode | None] = dict(zip(VARIANTS, (None, "weights", "outputs"), strict=False))


class _Forced(WEMoE):
    """WEMoE that computes its mixtures in one given way."""

    def __init__(self, pool: Pool, variant: str) -> None:
        super().__init__(pool, start=0.3)
        self.variant = variant

    def _mixed(self, x: Tensor, gates: Tensor, weight: str, bias: str) -> Tensor:
        base, vectors = self.pool.base, self.pool.vectors
        if self.variant in _MODES:
            mode = _MODES[self.variant]
            return mixed_linear(x, gates, base[weight], base[bias], vectors[weight], vectors[bias], mode)
        rows = [self._one(sample, gate, weight, bias) for sample, gate in zip(x, gates, strict=True)]
        return torch.stack(rows)

    def _one(self, sample: Tensor, gate: Tensor, weight: str, bias: str) -> Tensor:
        base, vectors = self.pool.base, self.pool.vectors
        own = base[weight] + sum(
            g * v.view_as(base[weight]) for g, v in zip(gate, vectors[weight], strict=True)
        )
        return linear(sample, own, base[bias] + gate @ vectors[bias])


def build(variant: str, options: dict[str, Any]) -> Step:
    """The update from one batch of the first task; returns the loss before it."""
    pool = random_pool(options)
    torch.manual_seed(0)
    method = _Forced(pool, variant).to(options["device"])
    task, images = next(iter(random_images(pool, options).items()))
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-4)

    def step() -> float:
        optimizer.zero_grad()
        with method.merged_once():
            loss = entropy(method.logits(images, task)).mean()
            loss.backward()
        optimizer.step()
        return loss.item()

    return step


def floor(options: dict[str, Any]) -> tuple[float, float]:
    """The least work of a step: the encoder's pass and its gradient with one MLP per image, and reading the MLPs' task
    vectors twice."""
    pool = random_pool({**options, "tasks": 1})
    method = WEMoE(pool, router_layers=0).to(options["device"])
    task, images = next(iter(random_images(pool, {**options, "batch_size": 1}).items()))
    with FlopCounterMode(display=False) as counter, method.merged_once():
        entropy(method.logits(images, task)).mean().backward()
    backbone = pool.backbone
    keys = [key for i in range(backbone.blocks) for key in backbone.names.mlp_keys(i).values()]
    elements = sum(pool.vectors[key].shape[1] for key in keys)
    width = torch.empty((), dtype=options["dtype"]).element_size()
    return counter.get_total_flops() * options["batch_size"], elements * (
        2 * options["tasks"] * width + 3 * 4
    )
