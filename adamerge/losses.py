"""Losses on unlabeled images, and the objectives that the configuration names."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


def entropy(logits: Tensor, eps: float = 0.0) -> Tensor:
    """Shannon entropy H(p) = -sum_c p_c log p_c of each prediction, in nats.

    Args:
        logits: (n, classes), the logit scale included.
        eps: added inside the logarithm. 0 is the paper's form (through log-softmax); FusionBench uses 1e-8.

    Returns:
        (n,) in float32 at least: logits of scale 100 lose their small probabilities in half precision.

    Source: AdaMerging, arXiv 2310.02575, eq. 5.
    """
    wide = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    probabilities = wide.softmax(dim=-1)
    logarithms = (probabilities + eps).log() if eps else wide.log_softmax(dim=-1)
    return -(probabilities * logarithms).sum(dim=-1)


class Classifier(Protocol):
    """What an objective needs of a method: turning a task's features (n, d) into logits (n, classes)."""

    def classify(self, features: Tensor, task: str) -> Tensor: ...


class Objective(Protocol):
    """A loss on one batch of one task's unlabeled images; the rounds sum it over batches and tasks."""

    name: str

    def __call__(self, method: Classifier, features: Tensor, task: str) -> Tensor: ...


class Entropy:
    """Mean entropy of the merged model's predictions over a batch (AdaMerging, eq. 5)."""

    name = "entropy (nats)"

    def __init__(self, eps: float = 0.0) -> None:
        self.eps = eps

    def __call__(self, method: Classifier, features: Tensor, task: str) -> Tensor:
        return entropy(method.classify(features, task), self.eps).mean()
