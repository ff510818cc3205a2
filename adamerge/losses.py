"""Losses on test images, and the objectives that the configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, l1_loss, mse_loss, normalize

Representation = tuple[Tensor, ...]


def _wide(logits: Tensor) -> Tensor:
    """At least float32: logits of scale 100 lose their small probabilities in half precision."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def entropy(logits: Tensor, eps: float = 0.0) -> Tensor:
    """Shannon entropy H(p) = -sum_c p_c log p_c of each prediction, in nats.

    Args:
        logits: (n, classes), the logit scale included.
        eps: added inside the logarithm. 0 is the paper's form (through log-softmax); FusionBench uses 1e-8.

    Returns:
        (n,) in float32 at least.

    Source: AdaMerging, arXiv 2310.02575, eq. 5.
    """
    wide = _wide(logits)
    probabilities = wide.softmax(dim=-1)
    logarithms = (probabilities + eps).log() if eps else wide.log_softmax(dim=-1)
    return -(probabilities * logarithms).sum(dim=-1)


def alignment(representation: Representation, target: Representation) -> Tensor:
    """Sum over the parts of the mean absolute difference; each mean is over images and channels.

    Args:
        representation, target: the same number of tensors of equal shapes (n, ...).

    Source: Representation Surgery, arXiv 2402.02705, eq. 4 (one part, the feature); SurgeryV2 adds the token means.
    """
    parts = [l1_loss(own, expert) for own, expert in zip(representation, target, strict=True)]
    return torch.stack(parts).sum()


def confident(logits: Tensor, teacher: Tensor) -> Tensor:
    """Which pseudo-labels to trust: those on which both agree, or of which the teacher is at least as sure.

    Args:
        logits, teacher: (n, classes) of the merged model and of the expert.

    Returns:
        bool (n,), without a gradient.

    Source: SyMerge, arXiv 2412.19098, confidence filter.
    """
    own, expert = _wide(logits).detach().softmax(dim=-1), _wide(teacher).softmax(dim=-1)
    agree = own.argmax(dim=-1) == expert.argmax(dim=-1)
    return agree | (expert.amax(dim=-1) >= own.amax(dim=-1))


class Head(Protocol):
    """A frozen classifier of features."""

    def logits(self, features: Tensor) -> Tensor: ...


class _Pool(Protocol):
    @property
    def heads(self) -> Mapping[str, Head]: ...


class Classifier(Protocol):
    """What an objective needs of a method: its frozen heads, and a task's logits (n, classes) of features (n, d)."""

    @property
    def pool(self) -> _Pool: ...

    def classify(self, features: Tensor, task: str) -> Tensor: ...


Target = Literal["none", "expert", "labels"]


class Objective(Protocol):
    """A loss on one batch of one task's images; the rounds sum it over batches and tasks.

    Attributes:
        name: with its unit, for axes.
        target: what it compares with: nothing, the expert's representation of the images, or their labels.

    It returns None where the batch holds nothing to learn from.
    """

    name: str
    target: Target

    def __call__(
        self, method: Classifier, representation: Representation, task: str, target: Representation
    ) -> Tensor | None: ...


class Entropy:
    """Mean entropy of the merged model's predictions over a batch (AdaMerging, eq. 5)."""

    name = "entropy (nats)"
    target: Target = "none"

    def __init__(self, eps: float = 0.0) -> None:
        self.eps = eps

    def __call__(
        self, method: Classifier, representation: Representation, task: str, target: Representation = ()
    ) -> Tensor:
        return entropy(method.classify(representation[-1], task), self.eps).mean()


class Alignment:
    """Mean absolute difference to the expert's representation (Surgery, eq. 4).

    Args:
        normalize: the expert's features are brought to length 1 first, for a method that does so with its own.
    """

    name = "distance to the expert (mean absolute difference)"
    target: Target = "expert"

    def __init__(self, normalize: bool = False) -> None:
        self.normalize = normalize

    def __call__(
        self, method: Classifier, representation: Representation, task: str, target: Representation
    ) -> Tensor:
        if self.normalize:
            target = (*target[:-1], normalize(target[-1], dim=-1))
        return alignment(representation, target)


class PseudoLabels:
    """Cross-entropy to the predictions of the task's expert with its frozen head.

    Args:
        confidence: keep only the images that pass the confidence filter (Tinting++ and SyMerge); where none does,
            there is no loss: the mean over nothing would poison the optimiser.
        soft: the expert's probabilities as targets, instead of its most likely class.

    Source: arXiv 2412.19098.
    """

    name = "cross-entropy to the expert (nats)"
    target: Target = "expert"

    def __init__(self, confidence: bool = False, soft: bool = False) -> None:
        self.confidence = confidence
        self.soft = soft

    def __call__(
        self, method: Classifier, representation: Representation, task: str, target: Representation
    ) -> Tensor | None:
        logits = _wide(method.classify(representation[-1], task))
        teacher = _wide(method.pool.heads[task].logits(target[-1]))
        if self.confidence:
            kept = confident(logits, teacher)
            if not kept.any():
                return None
            logits, teacher = logits[kept], teacher[kept]
        return cross_entropy(logits, teacher.softmax(dim=-1) if self.soft else teacher.argmax(dim=-1))


class Distillation:
    """Squared difference to the expert's output, summed over tokens, channels and images (ProDistill)."""

    name = "squared difference to the expert (summed)"
    target: Target = "none"

    def __call__(
        self, method: Classifier, representation: Representation, task: str, target: Representation = ()
    ) -> Tensor:
        return mse_loss(representation[-1], target[-1], reduction="sum")


class CrossEntropy:
    """Mean cross-entropy to the labels, for the methods that are given some."""

    name = "cross-entropy to the labels (nats)"
    target: Target = "labels"

    def __call__(
        self, method: Classifier, representation: Representation, task: str, target: Representation
    ) -> Tensor:
        return cross_entropy(_wide(method.classify(representation[-1], task)), target[0])


class Router(Classifier, Protocol):
    """A method that chooses among the experts by the features (n, d): logits (n, T)."""

    def route(self, features: Tensor) -> Tensor: ...

    def task_index(self, task: str) -> int: ...


class TaskIdentity:
    """Mean cross-entropy of a router to the task that the images come from (Twin-Merging)."""

    name = "cross-entropy to the task (nats)"
    target: Target = "none"

    def __call__(
        self, method: Router, representation: Representation, task: str, target: Representation = ()
    ) -> Tensor:
        logits = _wide(method.route(representation[-1]))
        return cross_entropy(
            logits, logits.new_full((len(logits),), method.task_index(task), dtype=torch.long)
        )
