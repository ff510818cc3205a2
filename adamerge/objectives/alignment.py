"""Distance of the representation to the expert's: Representation Surgery's, and ProDistill's."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, l1_loss, mse_loss, normalize

from adamerge.objectives.objective import Classifier, Representation, Target

Distance = Literal["l1", "l2", "cosine"]
Reduction = Literal["mean", "sum"]

_WORDS = {"l1": "absolute difference", "l2": "squared difference", "cosine": "1 - cosine"}


def alignment(
    representation: Representation,
    target: Representation,
    distance: Distance = "l1",
    reduction: Reduction = "mean",
) -> Tensor:
    """Sum over the parts of the distance to the target's.

    Args:
        representation, target: the same number of tensors of equal shapes (n, ...).
        distance: "l1" |x - y|, "l2" (x - y)^2, or "cosine" 1 - cos(x, y) over the last dimension.
        reduction: of each part, the mean or the sum over its images, tokens and (but for the cosine) channels.

    Source: Representation Surgery, arXiv 2402.02705, eq. 4 (one part, the feature; l1, mean); SurgeryV2 adds the token
    means. ProDistill, arXiv 2502.12706: a block's tokens, l2, sum.
    """
    parts = [
        _distance(own, expert, distance, reduction)
        for own, expert in zip(representation, target, strict=True)
    ]
    return torch.stack(parts).sum()


def _distance(own: Tensor, expert: Tensor, distance: Distance, reduction: Reduction) -> Tensor:
    if distance == "l1":
        return l1_loss(own, expert, reduction=reduction)
    if distance == "l2":
        return mse_loss(own, expert, reduction=reduction)
    apart = 1.0 - cosine_similarity(own, expert, dim=-1)
    return apart.mean() if reduction == "mean" else apart.sum()


class Alignment:
    """Distance of the merged model's representation to the expert's (Surgery, eq. 4).

    Args:
        distance: "l1", "l2" (squared) or "cosine".
        reduction: of a part's distances, their "mean" or their "sum".
        normalize: the expert's features are brought to length 1 first, for a method that does so with its own.

    Raises:
        ValueError: another distance or reduction.
    """

    target: Target = "expert"

    def __init__(
        self, distance: Distance = "l1", reduction: Reduction = "mean", normalize: bool = False
    ) -> None:
        if distance not in _WORDS:
            raise ValueError(f"distance should be {', '.join(_WORDS)} (got {distance!r})")
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction should be mean or sum (got {reduction!r})")
        self.distance = distance
        self.reduction = reduction
        self.normalize = normalize

    @property
    def name(self) -> str:
        what = "mean" if self.reduction == "mean" else "summed"
        return f"distance to the expert ({what} {_WORDS[self.distance]})"

    def __call__(
        self, method: Classifier, representation: Representation, task: str, target: Representation
    ) -> Tensor:
        if self.normalize:
            target = (*target[:-1], normalize(target[-1], dim=-1))
        return alignment(representation, target, self.distance, self.reduction)
