"""Agreement with the expert's predictions: hard pseudo-labels, with or without a confidence filter, or soft ones."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import cross_entropy

from adamerge.objectives.objective import Classifier, Representation, Target, widened


def confident(logits: Tensor, teacher: Tensor) -> Tensor:
    """Which pseudo-labels to trust: those on which both agree, or of which the teacher is at least as sure.

    Args:
        logits, teacher: (n, classes) of the merged model and of the expert.

    Returns:
        bool (n,), without a gradient.

    Source: SyMerge, arXiv 2412.19098, confidence filter.
    """
    own, expert = widened(logits).detach().softmax(dim=-1), widened(teacher).softmax(dim=-1)
    agree = own.argmax(dim=-1) == expert.argmax(dim=-1)
    return agree | (expert.amax(dim=-1) >= own.amax(dim=-1))


class _ToTheExpert:
    """The mean of `loss` over the images of a batch that are kept."""

    target: Target = "expert"

    def __init__(self, confidence: bool = False) -> None:
        self.confidence = confidence

    def __call__(
        self, method: Classifier, representation: Representation, task: str, target: Representation
    ) -> Tensor | None:
        logits = widened(method.classify(representation[-1], task))
        teacher = widened(method.pool.heads[task].logits(target[-1]))
        if self.confidence:
            kept = confident(logits, teacher)
            if not kept.any():
                return None
            logits, teacher = logits[kept], teacher[kept]
        return self.loss(logits, teacher)

    def loss(self, logits: Tensor, teacher: Tensor) -> Tensor:
        """Of logits (n, classes) of the merged model and of the expert, a scalar."""
        raise NotImplementedError


class PseudoLabels(_ToTheExpert):
    """Cross-entropy to the most likely class of the task's expert.

    Args:
        confidence: keep only the images that pass the confidence filter (Tinting++ and SyMerge); where none does,
            there is no loss: the mean over nothing would poison the optimiser.

    Source: arXiv 2412.19098.
    """

    name = "cross-entropy to the expert (nats)"

    def loss(self, logits: Tensor, teacher: Tensor) -> Tensor:
        return cross_entropy(logits, teacher.argmax(dim=-1))


class Agreement(_ToTheExpert):
    """Soft cross-entropy to the expert's probabilities, -t^2 sum_c q_c log p_c with p, q at temperature t.

    The factor t^2 keeps the gradient's size whatever the temperature.

    Args:
        temperature: that both models' logits are divided by; above 1 the less likely classes count for more.
        confidence: keep only the images that pass the confidence filter, as with hard pseudo-labels.

    Source: distillation, Hinton et al., arXiv 1503.02531, section 2.
    """

    name = "soft cross-entropy to the expert (nats)"

    def __init__(self, temperature: float = 1.0, confidence: bool = False) -> None:
        if not (temperature > 0.0 and math.isfinite(temperature)):
            raise ValueError(f"temperature should be a number above 0 (got {temperature})")
        super().__init__(confidence)
        self.temperature = temperature

    def loss(self, logits: Tensor, teacher: Tensor) -> Tensor:
        t = self.temperature
        return t * t * cross_entropy(logits / t, (teacher / t).softmax(dim=-1))
