"""Concrete subspace learning: a mask shared by the tasks selects where the task vectors agree (arXiv 2312.06173)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from adamerge.merging import Pool
from adamerge.merging.coefficients import Granularity
from adamerge.merging.layers import Layout
from adamerge.merging.masks import binary_mask, concrete_mask, uniform_noise
from adamerge.methods.adamerging import AdaMerging


class Concrete(AdaMerging):
    """theta = theta_0 + m / mean(m) * sum_k lambda_k tau_k with a relaxed Bernoulli mask m per tensor.

    The mask is drawn anew after each update. A draw is a pure function of the seed and the draw's
    number, both of which are saved, so that a restored model has the mask it was saved with.

    Args:
        pool: after any rule that keeps one encoder.
        temperature: of the relaxed Bernoulli distribution.
        train_coefficients: Concrete TA keeps them at their start, Concrete AdaMerging learns them as well.
        final_mask: what predicts, and what the coefficients are learned under once the mask is settled: the last
            "relaxed" draw, or the "binary" one of the same noise, a Bernoulli sample (the limit of temperature 0).
        granularity, start, clamp, layout: of the coefficients, as in AdaMerging.
    """

    def __init__(
        self,
        pool: Pool,
        temperature: float = 0.5,
        train_coefficients: bool = False,
        granularity: Granularity = "layer",
        start: float | Tensor | None = 0.3,
        clamp: bool = True,
        layout: Layout = "open_clip",
        final_mask: Literal["relaxed", "binary"] = "relaxed",
    ) -> None:
        super().__init__(pool, granularity, start, clamp, layout)
        self.final_mask = final_mask
        self.merging.requires_grad_(train_coefficients)
        self.temperature = temperature
        self.logits_of_mask = nn.ParameterList(torch.zeros_like(pool.base[key]) for key in pool.keys)
        self.seed: Tensor
        self.draw: Tensor
        self.register_buffer("seed", torch.randint(2**31, ()))
        self.register_buffer("draw", torch.zeros((), dtype=torch.long))
        self.settled: Tensor
        self.register_buffer("settled", torch.zeros((), dtype=torch.bool))

    def merge(self, task: str | None = None) -> dict[str, Tensor]:
        zeros = {key: torch.zeros_like(self.pool.base[key]) for key in self.pool.keys}
        merged = self.merge_onto(zeros)
        return {key: self.pool.base[key] + self.mask(i) * merged[key] for i, key in enumerate(self.pool.keys)}

    def mask(self, index: int) -> Tensor:
        """The current mask of a tensor, with mean 1."""
        logits = self.logits_of_mask[index]
        noise = uniform_noise(logits, int(self.seed), self.pool.keys[index], int(self.draw))
        if self.final_mask == "binary" and (bool(self.settled) or not self.training):
            return binary_mask(logits, noise)
        return concrete_mask(logits, noise, self.temperature)

    def after_update(self) -> None:
        self.draw += 1
