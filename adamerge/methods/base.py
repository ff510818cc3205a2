"""What every method shares: how an image becomes features and logits, and what a round is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from adamerge.errors import PoolError
from adamerge.merging import ONE, Head, Merged, Pool
from adamerge.methods.loop import Loop
from adamerge.models.blocks import after_blocks
from adamerge.objectives.entropy import Entropy
from adamerge.objectives.objective import Objective, Representation


class Method(nn.Module):
    """A merged model. Its parameters (and nothing else) are trained; the pool stays frozen.

    An image becomes logits in three stages, and a method overrides those it is about:

        encode    the encoder's pass. `merge` says how its tensors come about.
        correct   a task-specific part behind the encoder (Surgery's adapter).
        head      the classifier of the features (Tinting's trained head).

    Attributes:
        block_means: representations hold the token means after every residual block.
    """

    block_means = False

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.pool = pool
        self._open: Merged | None = None

    @property
    def by_task(self) -> bool:
        """Whether the encoder's pass depends on the task."""
        return self.pool.by_task

    @property
    def one_encoder(self) -> bool:
        """Whether there is one merged encoder that could be saved."""
        return not self.pool.by_task

    @property
    def frozen_encoder(self) -> bool:
        """Whether nothing that is trained reaches the encoder's pass, so that it need not be repeated."""
        return False

    @property
    def independent_images(self) -> bool:
        """Whether an image's representation is independent of the other images in its pass."""
        return True

    @property
    def one_pass(self) -> bool:
        """Whether one pass of an image serves every task, which then has its part in `correct` and `classify` alone."""
        own = type(self)
        return not self.by_task and own.features is Method.features and own.logits is Method.logits

    @property
    def loop(self) -> type[Loop]:
        """How it is trained unless a YAML or `fit` names another loop."""
        return Loop

    @property
    def objective(self) -> Objective:
        """What `fit` minimises unless it is given another; a YAML names its own."""
        return Entropy()

    def merge(self, task: str | None = None) -> dict[str, Tensor]:
        """The merged tensors by key, with a graph to the trained parameters. `task` matters only where a method
        has one encoder per task."""
        raise NotImplementedError

    @contextmanager
    def merged_once(self, task: str | None = None) -> Iterator[Merged]:
        """Merge once and use the result for every image inside the block.

        After the batches' `backward`, `contract_gradient()` brings the gradient to what is trained.
        """
        if self._open is not None:
            raise RuntimeError("a round is open already; rounds do not nest")
        self._open = Merged(self.pool.encoder, self.pool.fixed, self.merge(task))
        try:
            yield self._open
        finally:
            self._open = None

    def encode(self, images: Tensor, task: str | None = None) -> Representation:
        """The encoder's pass over images (n, 3, H, W): normalised floats, or uint8 pixels."""
        if not self.block_means:
            return (self.forward_encoder(images, task),)
        means: list[Tensor] = []

        def look(index: int, tokens: Tensor) -> Tensor:
            tokens = self.after_block(index, tokens, task)
            means.append(tokens.mean(dim=1))
            return tokens

        with after_blocks(self.pool.encoder, look):
            features = self.forward_encoder(images, task)
        return (*means, features)

    def forward_encoder(self, images: Tensor, task: str | None) -> Tensor:
        """Features (n, d). Outside a round every call merges anew, with an ordinary graph to the parameters."""
        if self._open is not None:
            return self._open(images)
        parameters = {**self.pool.fixed, **self.merge(task)}
        features: Tensor = functional_call(self.pool.encoder, parameters, (images,))
        return features

    def after_block(self, index: int, tokens: Tensor, task: str | None) -> Tensor:
        """What a method with `block_means` makes of the tokens (n, tokens, width) behind a residual block."""
        return tokens

    def correct(self, encoded: Representation, task: str) -> Representation:
        """The task-specific part behind the encoder."""
        return encoded

    def penalty(self) -> Tensor | None:
        """What the task-specific part adds to the loss of the batch that it corrected last; None for nothing."""
        return None

    def features(self, images: Tensor, task: str | None = None) -> Tensor:
        """Image features (n, d) after the projection, not normalised; without a task, or with an
        unseen one, those before `correct`."""
        encoded = self.encode(images, task)
        if task is None or task in self.pool.unseen:
            return encoded[-1]
        return self.correct(encoded, task)[-1]

    def head(self, task: str) -> Head:
        """What classifies a task's features; the pool's, weight and bias frozen, unless a method trains its own."""
        if task not in self.pool.heads:
            raise PoolError(f"No head for task '{task}'; the pool has {', '.join(self.pool.heads)}.")
        return self.pool.heads[task]

    def classify(self, features: Tensor, task: str) -> Tensor:
        """Logits (n, classes) of features (n, d), not normalised."""
        return self.head(task).logits(features)

    def logits(self, images: Tensor, task: str) -> Tensor:
        """Logits (n, classes) of images (n, 3, H, W): normalised floats, or uint8 pixels."""
        return self.classify(self.features(images, task), task)

    def notes(self, images: int) -> str:
        """What is worth saying before adapting on batches of `images` images; empty for nothing."""
        return ""

    def after_update(self) -> None:
        """Called after each step of the optimiser."""

    def coefficients(self) -> dict[str, dict[str, float]]:
        """{task: {layer: merging coefficient}}; empty where a method has none."""
        return {}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What is trained, as an optimiser takes it: one group for each part with a learning rate of its own."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def trainable_count(self) -> int:
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def merged_state_dict(self) -> dict[str, Tensor]:
        """The merged image encoder with open_clip keys, ready to save."""
        if not self.one_encoder:
            raise PoolError(
                "This model's encoder depends on the task or the image, so there is no single merged encoder to save."
            )
        with torch.no_grad():
            merged = self.merge()
        return {key: merged.get(key, value).detach().cpu() for key, value in self.pool.base.items()}

    def kept(self) -> Pool | None:
        """The pool that the finished model predicts from, from which `restore` makes it again: no experts, but what it
        uses of them. None where that is not known.

        By default the merged encoder and the heads as they are now, of a method that does no more with an image than
        that.
        """
        return self._merged_pool() if self.one_encoder and self._plain else None

    @classmethod
    def restore(cls, pool: Pool, state: Mapping[str, Tensor], **options: Any) -> Method:
        """The finished model over a pool that `kept` gave.

        Args:
            state: its state dict.
            options: those that it was made with.
        """
        from adamerge.methods.static import Static

        return Static(pool)

    @classmethod
    def with_state(cls, pool: Pool, state: Mapping[str, Tensor], **options: Any) -> Method:
        """Made over a pool with its options, and given its trained parts: what `restore` is for what has such."""
        method = cls(pool, **options)
        method.load_state_dict(dict(state))
        return method

    @property
    def _plain(self) -> bool:
        """Whether an image becomes logits as this class says: encoder, head, and nothing beside them."""
        return all(getattr(type(self), name) is own for name, own in _PASS.items())

    def _merged_pool(self) -> Pool:
        """The merged encoder and the heads as they are now."""
        return replace(
            self.pool,
            base=self.merged_state_dict(),
            vectors={},
            heads=self._heads(),
            coefficients=ONE,
            by_task=False,
            finished=True,
        )

    def _heads(self) -> dict[str, Head]:
        """What each task is classified with now."""
        return {task: self.head(task).map(Tensor.detach) for task in self.pool.heads}

    def task_index(self, task: str | None) -> int:
        """The task's place among the pool's tasks, where the parts of each task are kept.

        Raises:
            PoolError: no task, or one that the pool does not have.
        """
        if task not in self.pool.tasks:
            raise PoolError(
                f"This method has no part for task {task!r}; it has {', '.join(self.pool.tasks)}."
            )
        return self.pool.tasks.index(task)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # The pool follows the module to a device or type, though it holds no parameters of the module.
        with torch.no_grad():
            self.pool = self.pool.map(fn)
        return super()._apply(fn, recurse)


# How an image becomes logits, where a method does not do it in a way of its own.
_PASS = {
    name: getattr(Method, name)
    for name in ("encode", "forward_encoder", "after_block", "correct", "features", "classify", "logits")
}
