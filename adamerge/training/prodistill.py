"""Distilling block by block: the merged block's output on the merged stream follows the expert's on its own stream."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from adamerge.methods.prodistill import ElementWise
from adamerge.models.blocks import blocks, tokens_before_blocks
from adamerge.models.clip import pictures_of
from adamerge.training.adaptation import Adaptation, summed
from adamerge.training.batch import Batch, Given
from adamerge.training.gradients import Losses


class BlockByBlock(Adaptation):
    """Each block in turn for its share of the schedule's steps, an epoch over the same few images per step.

    Both streams of tokens are carried along: the merged one through the blocks already learned, and each task's
    through its expert. Loss: the squared difference of the block's outputs, summed over tokens, channels and images.

    Args:
        minibatch: images of an update, of all tasks together.

    Source: ProDistill, arXiv 2502.12706.
    """

    method: ElementWise

    def __init__(self, *args: Any, minibatch: int = 128, **options: Any) -> None:
        super().__init__(*args, **options)
        self.minibatch = minibatch
        self.epochs = max(1, self.schedule.steps // len(blocks(self.method.pool.encoder)))
        self._block = -1
        self._merged: dict[str, Tensor] = {}
        self._expert: dict[str, Tensor] = {}

    def training_step(self, stream: dict[str, Given], batch_idx: int) -> None:
        depth = len(blocks(self.method.pool.encoder))
        block = min(self.step // self.epochs, depth - 1)
        images = {
            task: _pixels(Batch.of(task, given), self.method.pool.encoder) for task, given in stream.items()
        }
        self._walk_to(block, images)
        rows = [(task, i) for task, pixels in images.items() for i in range(len(pixels))]
        order = self.schedule.order(len(rows), self.step, "images")
        losses: Losses = []
        for first in range(0, len(rows), self.minibatch):
            chosen = sorted(rows[i] for i in order[first : first + self.minibatch])
            losses += self._update(block, chosen)
        self.finish_step(summed(losses))

    def _update(self, block: int, chosen: list[tuple[str, int]]) -> Losses:
        """One step on the block's coefficients with the chosen images (task, number)."""
        optimizer: Any = self.optimizers()
        self.prepare(optimizer)
        out = self._run(block, torch.stack([self._merged[task][i] for task, i in chosen]), None)
        losses: Losses = []
        for task in dict.fromkeys(task for task, _ in chosen):
            own = [row for row, (other, _) in enumerate(chosen) if other == task]
            wanted = torch.stack([self._expert[task][i] for other, i in chosen if other == task])
            losses.append((task, self.objective(self.method, (out[own],), task, (wanted,))))  # type: ignore[arg-type]
        self.manual_backward(torch.stack([loss for _, loss in losses]).sum())
        losses = [(task, loss.detach()) for task, loss in losses]
        self.check_finite(losses)
        self.take_step(optimizer)
        return losses

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
