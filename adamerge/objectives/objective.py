"""What an objective is, and what it needs of a method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

import torch
from torch import Tensor

# What of an image is compared with its expert: tensors (n, ...), the last one the feature (n, d) after the projection,
# not normalised. A method with `block_means` shows the token mean (n, width) after every residual block before it.
Representation = tuple[Tensor, ...]

Target = Literal["none", "expert", "labels"]


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


class Objective(Protocol):
    """A loss on one batch of one task's images; the rounds sum it over batches and tasks.

    Attributes:
        name: with its unit, for axes.
        target: what it compares with: nothing, the expert's representation of the images, or their labels.

    It returns None where the batch holds nothing to learn from.
    """

    @property
    def name(self) -> str: ...

    @property
    def target(self) -> Target: ...

    def __call__(
        self, method: Classifier, representation: Representation, task: str, target: Representation
    ) -> Tensor | None: ...


def widened(logits: Tensor) -> Tensor:
    """At least float32: logits of scale 100 lose their small probabilities in half precision."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
