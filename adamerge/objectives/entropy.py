"""Entropy of the merged model's predictions (AdaMerging), also with each predicted class counted alike."""

from __future__ import annotations

import torch
from torch import Tensor

from adamerge.objectives.objective import Classifier, Representation, Target, widened


def entropy(logits: Tensor, eps: float = 0.0) -> Tensor:
    """Shannon entropy H(p) = -sum_c p_c log p_c of each prediction, in nats.

    Args:
        logits: (n, classes), the logit scale included.
        eps: added inside the logarithm. 0 is the paper's form (through log-softmax); FusionBench uses 1e-8.

    Returns:
        (n,) in float32 at least.

    Source: AdaMerging, arXiv 2310.02575, eq. 5.
    """
    wide = widened(logits)
    probabilities = wide.softmax(dim=-1)
    logarithms = (probabilities + eps).log() if eps else wide.log_softmax(dim=-1)
    return -(probabilities * logarithms).sum(dim=-1)


class Entropy:
    """Mean entropy of the merged model's predictions over a batch (AdaMerging, eq. 5).

    Args:
        eps: added inside the logarithm.
    """

    name = "entropy (nats)"
    target: Target = "none"

    def __init__(self, eps: float = 0.0) -> None:
        if eps < 0.0:
            raise ValueError(f"eps should not be negative (got {eps})")
        self.eps = eps

    def __call__(
        self, method: Classifier, representation: Representation, task: str, target: Representation = ()
    ) -> Tensor:
        return entropy(method.classify(representation[-1], task), self.eps).mean()


class BalancedEntropy(Entropy):
    """Entropy in which every predicted class of the batch counts alike: its mean over the images of each predicted
    class, and the mean of these over the classes that are predicted.

    Where one class takes over, its images no longer outvote the others. Which class an image is predicted as has no
    gradient. With as many images in every class it is the plain mean.

    Args:
        eps: added inside the logarithm.

    Source: DSBR, arXiv 2606.02339, as its abstract describes the weighting.
    """

    name = "entropy, predicted classes counted alike (nats)"

    def __call__(
        self, method: Classifier, representation: Representation, task: str, target: Representation = ()
    ) -> Tensor:
        logits = method.classify(representation[-1], task)
        predicted = logits.detach().argmax(dim=-1)
        counts = torch.bincount(predicted, minlength=logits.shape[-1])
        each = entropy(logits, self.eps)
        return (each / counts[predicted]).sum() / (counts > 0).sum()
