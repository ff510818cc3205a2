"""What every method shares: how an image becomes features and logits, and what a round is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import linear, normalize

from adamerge.errors import PoolError
from adamerge.merging import Merged, Pool


class Method(nn.Module):
    """A merged model. Its parameters (and nothing else) are trained; the pool stays frozen.

    Subclasses say in `merge` how the encoder's tensors come about, and may override `features` or `classify`
    to add a task-specific part.
    """

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.pool = pool
        self._open: Merged | None = None

    def merge(self, task: str | None = None) -> dict[str, Tensor]:
        """The merged tensors by key, with a graph to the trained parameters. `task` matters only where a method
        has one encoder per task."""
        raise NotImplementedError

    @property
    def by_task(self) -> bool:
        """Whether each task has an encoder of its own."""
        return self.pool.by_task

    @contextmanager
    def round(self, task: str | None = None) -> Iterator[Merged]:
        """Merge once and use the result for every image inside the block.

        After the batches' `backward`, call `pull()` on the yielded object to bring the gradient to the parameters.
        """
        if self._open is not None:
            raise RuntimeError("a round is open already; rounds do not nest")
        self._open = Merged(self.pool.encoder, self.pool.fixed, self.merge(task))
        try:
            yield self._open
        finally:
            self._open = None

    def features(self, images: Tensor, task: str | None = None) -> Tensor:
        """Image features (n, d) after the projection, not normalised.

        Outside a round every call merges anew, with an ordinary graph to the parameters.
        """
        if self._open is not None:
            return self._open(images)
        parameters = {**self.pool.fixed, **self.merge(task)}
        features: Tensor = functional_call(self.pool.encoder, parameters, (images,))
        return features

    def classify(self, features: Tensor, task: str) -> Tensor:
        """Logits (n, classes): the task's zero-shot head on the normalised features."""
        if task not in self.pool.heads:
            raise PoolError(f"No head for task '{task}'; the pool has {', '.join(self.pool.heads)}.")
        return linear(normalize(features, dim=-1), self.pool.heads[task])

    def logits(self, images: Tensor, task: str) -> Tensor:
        """Logits (n, classes) of images (n, 3, H, W): normalised floats, or uint8 pixels."""
        return self.classify(self.features(images, task), task)

    def coefficients(self) -> dict[str, dict[str, float]]:
        """{task: {layer: merging coefficient}}; empty where a method has none."""
        return {}

    def trainable_count(self) -> int:
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def merged_state_dict(self) -> dict[str, Tensor]:
        """The merged image encoder with open_clip keys, ready to save."""
        if self.by_task:
            raise PoolError(
                "This model has one encoder per task, not one merged encoder that could be saved."
            )
        with torch.no_grad():
            merged = self.merge()
        return {key: merged.get(key, value).detach().cpu() for key, value in self.pool.base.items()}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # The pool follows the module to a device or type, though it holds no parameters of the module.
        with torch.no_grad():
            self.pool = self.pool.map(fn)
        return super()._apply(fn, recurse)
