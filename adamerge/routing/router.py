"""What a router is. It looks at each image by itself: which others come with it changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor


class Router(Protocol):
    """From images the tasks that each may be of.

    Where several are left, the head with the largest logit decides: the class is the best of all that the candidates'
    heads know, laid side by side.
    """

    @property
    def tasks(self) -> tuple[str, ...]:
        """The T tasks, in the order of the columns."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """(n, T) booleans, one or more for each of the images (n, 3, H, W): normalised floats, or uint8 pixels."""
        ...

    def map(self, fn: Callable[[Tensor], Tensor]) -> Router:
        """The same router with `fn` (a move to another device) applied to its tensors."""
        ...
