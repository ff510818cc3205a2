"""Cross-entropy to labels, for the methods that are given some."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from adamerge.objectives.objective import Classifier, Representation, Target, widened


class CrossEntropy:
    """Mean cross-entropy to the labels."""

    name = "cross-entropy to the labels (nats)"
    target: Target = "labels"

    def __call__(
        self, method: Classifier, representation: Representation, task: str, target: Representation
    ) -> Tensor:
        return cross_entropy(widened(method.classify(representation[-1], task)), target[0])
