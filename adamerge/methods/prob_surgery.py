"""ProbSurgery: the bias that an adapter takes off the merged feature is a distribution (ICML 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from adamerge.merging import Pool
from adamerge.methods.base import Method
from adamerge.methods.with_coefficients import MakeCoefficients, WithCoefficients
from adamerge.objectives.alignment import Alignment
from adamerge.objectives.objective import Objective, Representation


class ProbabilisticAdapter(nn.Module):
    """The bias of a feature x as a normal distribution with a mean and a log variance of each channel.

    Both are linear in h = relu(down(x)), without biases, and start at zero: at first the mean is the identity's, and
    the distribution the standard normal one. `down` (rank, width) starts as torch's linear layers do.

    Args:
        width: of the feature.
        rank: width of the bottleneck.
    """

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank, bias=False)
        self.mean = nn.Linear(rank, width, bias=False)
        self.log_variance = nn.Linear(rank, width, bias=False)
        nn.init.zeros_(self.mean.weight)
        nn.init.zeros_(self.log_variance.weight)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (n, width) -> mean and log variance of its bias, both (n, width)."""
        hidden = torch.relu(self.down(x))
        return self.mean(hidden), self.log_variance(hidden)


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, e^log_variance) || N(0, 1)) in nats: summed over the channels, the mean over the images.

    Args:
        mean, log_variance: (n, width).
    """
    each = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance)
    return each.sum(dim=1).mean()


class ProbSurgery(WithCoefficients):
    """An adapter per task behind the merged encoder whose bias is drawn while training, and is its mean after it.

    To the loss of a batch comes beta KL(N(mu, sigma^2) || N(0, 1)).

    Args:
        pool: after any rule.
        rank: width of the adapters' bottleneck.
        beta: weight of the divergence.
        coefficients: merging coefficients that are learned jointly with the adapters; None leaves the rule's at rest.

    Source: ProbSurgery, ICML 2025; rank and beta as in its released code, of which the last round is taken here, not
    the best of five by test accuracy.
    """

    def __init__(
        self,
        pool: Pool,
        rank: int = 128,
        beta: float = 1e-4,
        coefficients: MakeCoefficients | None = None,
    ) -> None:
        super().__init__(pool, coefficients)
        self.adapters = nn.ModuleList(ProbabilisticAdapter(pool.backbone.embed_dim, rank) for _ in pool.tasks)
        self.beta = beta
        self._divergence: Tensor | None = None

    @property
    def objective(self) -> Objective:
        return Alignment()

    def correct(self, encoded: Representation, task: str) -> Representation:
        feature = encoded[-1]
        mean, log_variance = self.adapters[self.task_index(task)](feature)
        if not self.training:
            return (feature - mean,)
        self._divergence = divergence(mean, log_variance)
        return (feature - mean - torch.randn_like(mean) * (0.5 * log_variance).exp(),)

    def penalty(self) -> Tensor | None:
        drawn, self._divergence = self._divergence, None
        return None if drawn is None else self.beta * drawn

    def kept(self) -> Pool:
        return self._static_pool()

    @classmethod
    def restore(cls, pool: Pool, state: Mapping[str, Tensor], **options: Any) -> Method:
        return cls.restore_part(pool, state, **options)
