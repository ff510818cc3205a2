"""Fisher merging: entries averaged by what their expert's predictions owe to them (arXiv 2111.09832, NeurIPS 2022)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adamerge.errors import PoolError
from adamerge.merging.task_vectors import Statistics, TaskVectors, TensorRule, observed
from adamerge.rules.rule import Rule


@dataclass(frozen=True)
class Fisher(Rule):
    """Entry by entry the mean of the experts, each weighed by its diagonal Fisher information F_t:

        W = sum_t c_t (F_t + floor) W_t / sum_t c_t (F_t + floor)       c_t = 1 / (||F_t||_2 + floor), or 1

    F_t = mean_x sum_c p_c(x) (d log p_c(x) / d theta)^2 over unlabeled images x of task t: the expectation over the
    classes is the expert's own and exact, and each image's gradient is squared by itself. (FusionBench squares the sum
    over a batch, of sum_c sqrt(p_c) log p_c.) Where no expert's predictions depend on an entry it is averaged.

    Args:
        normalize: whether each expert's information is brought to about length 1 over all merged tensors, so that an
            expert that is less certain does not count more everywhere.
        floor: added to every entry of F_t. 1e-6 is FusionBench's and MergeLM's; the larger, the nearer to the average.

    Raises:
        PoolError: without statistics of images.
    """

    needs = "images"
    gives = "delta"
    linear = True

    normalize: bool = True
    floor: float = 1.0e-6

    def __post_init__(self) -> None:
        if not self.floor > 0.0:
            raise ValueError(
                f"floor is added to the information and keeps it above 0; it is not {self.floor}"
            )

    def prepare(self, vectors: TaskVectors) -> TensorRule:
        seen, names = observed(vectors), vectors.names
        scales = [self._scale(name, vectors.keys, seen) for name in names]

        def of_tensor(key: str, base: Tensor, stack: Tensor) -> Tensor:
            pulled, total = torch.zeros_like(base), torch.zeros_like(base)
            for name, scale, vector in zip(names, scales, stack, strict=True):
                weight = scale * (_information(seen, name, key, base) + self.floor)
                pulled += weight * vector
                total += weight
            return (pulled / total).unsqueeze(0)

        return of_tensor

    def _scale(self, name: str, keys: tuple[str, ...], seen: Statistics) -> float:
        """c_t."""
        if not self.normalize:
            return 1.0
        found = (seen.fisher(name, key) for key in keys)
        squares = sum(float(one.double().square().sum()) for one in found if one is not None)
        return 1.0 / (squares**0.5 + self.floor)


def _information(seen: Statistics, name: str, key: str, like: Tensor) -> Tensor:
    found = seen.fisher(name, key)
    if found is None or found.shape != like.shape:
        raise PoolError(f"The Fisher information of {name} does not fit {key} {tuple(like.shape)}.")
    return found.to(like.device, like.dtype)
