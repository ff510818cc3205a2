"""ProDistill: a coefficient for every single parameter, distilled from the experts block by block."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from adamerge.errors import ConfigError, PoolError
from adamerge.merging import Pool
from adamerge.methods.base import Method
from adamerge.methods.gradients import Losses
from adamerge.methods.loop import Loop
from adamerge.models.blocks import blocks, tokens_before_blocks
from adamerge.models.clip import pictures_of
from adamerge.objectives.alignment import Alignment
from adamerge.objectives.objective import Objective
from adamerge.rounds.batch import Batch


class ElementWise(Method):
    """theta = theta_0 + sum_k lambda_k * tau_k with an element-wise lambda_k in the blocks; elsewhere the rule's own.

    Args:
        pool: after any rule that keeps one encoder and whose coefficient is one number.
        start: start value of every coefficient in the blocks; None takes the rule's.

    Raises:
        PoolError: a rule that gives something else.
    """

    def __init__(self, pool: Pool, start: float | None = 0.3) -> None:
        super().__init__(pool)
        if pool.by_task or not pool.coefficients.is_one_number:
            raise PoolError("ProDistill starts from one coefficient, which this rule or start does not give.")
        if blocks(pool.encoder) and pool.backbone.rotary:  # `blocks` refuses an encoder without
            raise PoolError(
                "ProDistill trains the blocks one by one on their tokens; those of this encoder take rotary positions "
                "beside the tokens, which it does not keep."
            )
        names = pool.backbone.names
        value = pool.coefficients.number if start is None else start
        self.inner = tuple(key for key in pool.keys if names.block_of(key) is not None)
        self.scales = nn.ParameterList(
            torch.full_like(pool.vectors[key], value, dtype=pool.base[key].dtype) for key in self.inner
        )

    @property
    def loop(self) -> type[Loop]:
        return BlockByBlock

    @property
    def objective(self) -> Objective:
        return Alignment("l2", "sum")

    def merge(self, task: str | None = None) -> dict[str, Tensor]:
        static = self.pool.static()
        return {**{key: static[key] for key in self.pool.keys}, **self.merged_block(None)}

    def merged_block(self, index: int | None) -> dict[str, Tensor]:
        """The merged tensors of one block, or of all."""
        names = self.pool.backbone.names
        merged = {}
        for key, scale in zip(self.inner, self.scales, strict=True):
            if index is None or names.block_of(key) == index:
                base = self.pool.base[key]
                merged[key] = base + (scale * self.pool.vectors[key]).sum(dim=0).view(base.shape).to(
                    base.dtype
                )
        return merged

    def fixed_of(self, index: int) -> dict[str, Tensor]:
        """A block's tensors that no expert changed."""
        names = self.pool.backbone.names
        return {key: value for key, value in self.pool.fixed.items() if names.block_of(key) == index}


class BlockByBlock(Loop):
    """Each block in turn for its share of the schedule's steps, an epoch over the same few images per step.

    Both streams of tokens are carried along: the merged one through the blocks already learned, and each task's
    through its expert. Loss: the squared difference of the block's outputs, summed over tokens, channels and images.

    Args:
        minibatch: images of an update, of all tasks together.

    Source: ProDistill, arXiv 2502.12706.
    """

    method: ElementWise
    compares_itself = True

    def __init__(self, *args: Any, minibatch: int = 128, **options: Any) -> None:
        super().__init__(*args, **options)
        if not isinstance(self.objective, Alignment):
            raise ConfigError(
                f"objective: {type(self.objective).__name__} is no distance to the expert's tokens, by which "
                "the blocks are trained one by one.\n"
                "  Give objective=distillation, alignment, alignment_l2 or alignment_cosine."
            )
        self.minibatch = minibatch
        self.epochs = max(1, self.schedule.steps // len(blocks(self.method.pool.encoder)))
        self._block = -1
        self._merged: dict[str, Tensor] = {}
        self._expert: dict[str, Tensor] = {}

    @property
    def guarded_from(self) -> int:
        # A block is distilled into those before it, and all of them together are the model.
        return self.schedule.steps

    def step(self, batches: Sequence[Batch], optimizers: Sequence[Any]) -> Losses:
        depth = len(blocks(self.method.pool.encoder))
        block = min(self.engine.step // self.epochs, depth - 1)
        images = {batch.task: _pixels(batch, self.method.pool.encoder) for batch in batches}
        self._walk_to(block, images)
        rows = [(task, i) for task, pixels in images.items() for i in range(len(pixels))]
        order = self.schedule.order(len(rows), self.engine.step, "images")
        losses: Losses = []
        for first in range(0, len(rows), self.minibatch):
            chosen = sorted(rows[i] for i in order[first : first + self.minibatch])
            losses += self.minimise(optimizers[0], partial(self._losses, block, chosen))
        return losses

    def _losses(self, block: int, chosen: list[tuple[str, int]]) -> Losses:
        """Of the block with the chosen images (task, number)."""
        out = self._run(block, torch.stack([self._merged[task][i] for task, i in chosen]), None)
        losses: Losses = []
        for task in dict.fromkeys(task for task, _ in chosen):
            own = [row for row, (other, _) in enumerate(chosen) if other == task]
            wanted = torch.stack([self._expert[task][i] for other, i in chosen if other == task])
            losses.append((task, self.objective(self.method, (out[own],), task, (wanted,))))  # type: ignore[arg-type]
        self.engine.backward(torch.stack([loss for _, loss in losses]).sum())
        return [(task, loss.detach()) for task, loss in losses]

    @torch.no_grad()
    def _walk_to(self, block: int, images: dict[str, Tensor]) -> None:
        """Bring `_merged` (the block's input) and `_expert` (its output at the expert) to `block`."""
        if self._block == block:
            return
        pool = self.method.pool
        for task, pixels in images.items():
            if self._block < 0:
                # What lies before the blocks is merged statically, and the expert's own.
                self._merged[task] = tokens_before_blocks(
                    pool.encoder, {**pool.base, **pool.static()}, pixels
                )
                self._expert[task] = tokens_before_blocks(pool.encoder, pool.expert(task), pixels)
        for index in range(max(self._block, 0), block + 1):
            for task in images:
                if index < block:
                    self._merged[task] = self._run(index, self._merged[task], None)
                if index > self._block:
                    self._expert[task] = self._run(index, self._expert[task], task)
        self._block = block

    def _run(self, index: int, tokens: Tensor, task: str | None) -> Tensor:
        """One block on tokens (n, tokens, width), with the merged parameters or those of a task's expert."""
        pool = self.method.pool
        if task is None:
            state = {**self.method.fixed_of(index), **self.method.merged_block(index)}
        else:
            row, names = pool.names.index(task), pool.backbone.names
            state = self.method.fixed_of(index)
            for key in pool.keys:
                if names.block_of(key) == index:
                    base = pool.base[key]
                    state[key] = base + pool.vectors[key][row].view(base.shape).to(base.dtype)
        own = {pool.backbone.names.within(key): value for key, value in state.items()}
        out: Tensor = functional_call(blocks(pool.encoder)[index], own, (tokens,))
        return out


def _pixels(batch: Batch, encoder: nn.Module) -> Tensor:
    assert batch.images is not None
    is_raw = batch.images.dtype == torch.uint8
    return pictures_of(encoder).normalise(batch.images) if is_raw else batch.images
