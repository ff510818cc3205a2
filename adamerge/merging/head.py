"""A task's classification head: the only place where features become logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import linear, normalize

from adamerge.merging.precision import full_precision


@dataclass(frozen=True, eq=False)
class Head:
    """A linear classifier of image features, frozen.

    Attributes:
        weight: (classes, d), the logit scale in it.
        bias: (classes,), or None. Zero-shot heads have none; a linear probe mostly has one.
        normalize: features are brought to length 1 first, as CLIP's zero-shot classification does and as the
            ClassificationHead of the task-vectors code does unless it says otherwise.
    """

    weight: Tensor
    bias: Tensor | None = None
    normalize: bool = True

    @property
    def classes(self) -> int:
        return len(self.weight)

    def logits(self, features: Tensor) -> Tensor:
        """Logits (n, classes) of image features (n, d), which come as the encoder's projection leaves them."""
        with full_precision(features):  # a scale of 100 leaves narrow types half a unit of a logit
            features = features.to(self.weight.dtype)
            return linear(normalize(features, dim=-1) if self.normalize else features, self.weight, self.bias)

    def map(self, fn: Callable[[Tensor], Tensor]) -> Head:
        """The same head with `fn` (a move to another device or type) applied to its tensors."""
        return Head(fn(self.weight), None if self.bias is None else fn(self.bias), self.normalize)
