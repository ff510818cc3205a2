"""AIM: a merge changes least where the base's activations are large (arXiv 2502.02421)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adamerge.errors import PoolError
from adamerge.merging.task_vectors import Statistics, TaskVectors, TensorRule, observed, origin_of
from adamerge.rules.post import PostRule, TensorPost


@dataclass(frozen=True)
class Aim(PostRule):
    """For each linear layer of the blocks, column i of the merged change D is shrunk by how strongly input i speaks in
    the pre-trained base:

        D[:, i] <- D[:, i] (1 - I_i (1 - omega))        I_i = mean |x_i| / max_j mean |x_j|

    x is what enters the layer in the base, on unlabeled images; the mean is over all tokens, and each task counts
    alike. Query, key and value share theirs. What is no linear layer of a block (biases, norms, embeddings, the
    projection) stays as the rule has it. Source: ahnobari/ActivationInformedMerging; the images are a choice of ours,
    as the authors calibrate language models.

    Args:
        omega: what is left of the change at the loudest input; 1 changes nothing. The authors try 0.2 to 0.6.

    Raises:
        PoolError: without statistics of images; task vectors about the experts' average.
    """

    needs = "images"

    omega: float = 0.4

    def __post_init__(self) -> None:
        if not 0.0 <= self.omega <= 1.0:
            raise ValueError(f"omega is the share of the change that is left, in [0, 1], not {self.omega}")

    def prepare(self, vectors: TaskVectors, rule: TensorRule, coefficient: float) -> TensorPost:
        seen, names = observed(vectors), vectors.names
        if origin_of(vectors) != "base":
            raise PoolError(
                "AIM shrinks how far the merge is from the pre-trained base, and origin=average merges about another.\n"
                "  Give origin=base, or another post."
            )

        def of_tensor(key: str, stack: Tensor, found: Tensor) -> Tensor:
            importance = _importance(seen, names, key)
            if importance is None:
                return found
            return found * (1.0 - importance * (1.0 - self.omega)).to(found)

        return of_tensor


def _importance(seen: Statistics, names: tuple[str, ...], key: str) -> Tensor | None:
    """(inputs,) in [0, 1]; None for a tensor that is no linear layer's weight."""
    found = [one for one in (seen.activation(name, key) for name in names) if one is not None]
    if not found:
        return None
    loudness = torch.stack(found).double().mean(dim=0)
    return loudness / loudness.max().clamp(min=torch.finfo(loudness.dtype).tiny)
