"""Images of all tasks on their way through the blocks of a merge and of each task's expert, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.func import functional_call

from adamerge.architecture import architecture_of
from adamerge.errors import PoolError
from adamerge.merging import Pool
from adamerge.merging.precision import wide
from adamerge.merging.walk import BlockMoments, Moments
from adamerge.models.blocks import after_blocks, blocks, tokens_before_blocks
from adamerge.statistics.entering import Images, block_watched

State = Mapping[str, Tensor]

# What another token than the class token weighs in the last block, where that one alone leaves the encoder.
_REST = 0.01


class Walking:
    """A walk (`adamerge.merging.walk.Walk`) whose tokens lie in memory: of every image once in the merge and once in
    its expert. They wait on the CPU, and pass through on the device.

    In the last block tokens that do not leave the encoder weigh 0.01, but for keys and values, which they are there
    for.

    Args:
        pool: the experts, before any rule.
        images: of each expert's task.
        merged: the merge, by key.
        progress: is told how many images have passed through a block.

    Raises:
        PoolError: an encoder without transformer blocks, or whose blocks take rotary positions beside the tokens; when
            it is walked through, another attention, norm or MLP than is known.
    """

    def __init__(
        self,
        pool: Pool,
        images: Mapping[str, Images],
        merged: State,
        *,
        device: torch.device,
        batch_size: int = 64,
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        self.blocks = len(blocks(pool.encoder))
        if architecture_of(pool.encoder).rotary:
            raise PoolError(
                "This rule walks through the blocks one by one, and those of this encoder take rotary positions beside "
                "the tokens, which it does not keep."
            )
        self._pool, self._merged = pool, merged
        self._device, self._batch_size, self._progress = device, batch_size, progress
        self._student = {name: self._tokens(merged, images[name]) for name in pool.names}
        self._expert = {name: self._tokens(pool.expert(name), images[name]) for name in pool.names}
        self._leaves_alone = self._class_token_leaves_alone(images[pool.names[0]][:1])

    @torch.no_grad()
    def moments(self, index: int, expert: str) -> BlockMoments:
        merge, own = self._block(index, self._merged), self._block(index, self._of_expert(index, expert))
        student, teacher = self._student[expert], self._expert[expert]
        ends = self._leaves_alone and index == self.blocks - 1
        sums = {rest: _Sums(rest) for rest in ((1.0, _REST) if ends else (1.0,))}
        for first in range(0, len(student), self._batch_size):
            batch = slice(first, first + self._batch_size)
            entering, _ = self._watched(index, merge, student[batch])
            beside, out = self._watched(index, own, teacher[batch])
            teacher[batch] = out.to(teacher)
            for each in sums.values():
                each.add(entering, beside)
            self._progress(len(out))
        names = architecture_of(self._pool.encoder).names
        usual, full = sums[_REST if ends else 1.0], sums[1.0]
        norms = {key for key in entering if names.is_gain(key)}
        return BlockMoments(
            linears={
                # The query of the class token alone leaves the last block, but the keys and values of all tokens.
                key: (usual.of(key), full.of(key), full.of(key))
                if ends and names.is_fused(key)
                else (usual.of(key),)
                for key in entering
                if key not in norms
            },
            norms={key: (usual.of(key).second.diag(), usual.of(key).mean) for key in norms},
        )

    @torch.no_grad()
    def go_on(self, index: int, block: State) -> None:
        state = self._block(index, {**self._merged, **block})
        for tokens in self._student.values():
            for first in range(0, len(tokens), self._batch_size):
                batch = slice(first, first + self._batch_size)
                tokens[batch] = self._run(index, state, tokens[batch]).to(tokens)
                self._progress(len(tokens[batch]))

    def _tokens(self, state: State, images: Images) -> Tensor:
        """(n, tokens, width) before the first block, on the CPU."""
        on_device = {key: value.to(self._device) for key, value in state.items()}
        found = [
            tokens_before_blocks(
                self._pool.encoder, on_device, images[first : first + self._batch_size].to(self._device)
            ).cpu()
            for first in range(0, len(images), self._batch_size)
        ]
        return torch.cat(found)

    def _of_expert(self, index: int, expert: str) -> State:
        """The tensors of an expert's block, by key."""
        pool, row = self._pool, self._pool.names.index(expert)
        names = architecture_of(pool.encoder).names
        own = {key: value for key, value in pool.base.items() if names.block_of(key) == index}
        changed = {key: pool.vectors[key][row] for key in own if key in pool.vectors}
        return {
            key: base + changed[key].view(base.shape).to(base.dtype) if key in changed else base
            for key, base in own.items()
        }

    def _block(self, index: int, state: State) -> dict[str, Tensor]:
        """The tensors of a block by their names within it, on the device."""
        names = architecture_of(self._pool.encoder).names
        return {
            names.within(key): value.to(self._device)
            for key, value in state.items()
            if names.block_of(key) == index
        }

    def _run(self, index: int, block: State, tokens: Tensor) -> Tensor:
        out: Tensor = functional_call(
            blocks(self._pool.encoder)[index], dict(block), (tokens.to(self._device),)
        )
        return out

    def _watched(self, index: int, block: State, tokens: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """What enters each linear and comes out of each norm before its gain, by key; and what leaves the block."""
        found: dict[str, Tensor] = {}
        with block_watched(self._pool.encoder, index, found.__setitem__):
            out = self._run(index, block, tokens)
        return found, out

    @torch.no_grad()
    def _class_token_leaves_alone(self, image: Tensor) -> bool:
        """Whether the encoder's feature is that of its first token: it stays where the others are nothing."""
        encoder = self._pool.encoder
        state = {key: value.to(self._device) for key, value in self._merged.items()}

        def without_others(index: int, tokens: Tensor) -> Tensor:
            if index < self.blocks - 1:
                return tokens
            return torch.cat([tokens[:, :1], torch.zeros_like(tokens[:, 1:])], dim=1)

        image = image.to(self._device)
        feature = functional_call(encoder, state, (image,))
        with after_blocks(encoder, without_others):
            found = functional_call(encoder, state, (image,))
        return torch.allclose(feature, found)


class _Sums:
    """Weighted sums over the tokens of a block, by what they enter.

    Args:
        rest: what tokens weigh that are not the first of their image.
    """

    def __init__(self, rest: float) -> None:
        self._rest = rest
        self._sums: dict[str, list[Tensor]] = {}
        self._weight = 0.0

    def add(self, entering: State, beside: State) -> None:
        for key, tokens in entering.items():
            student, teacher = wide(tokens).flatten(0, 1), wide(beside[key]).flatten(0, 1)
            weights = self._weights(tokens).to(student).flatten()
            left = (student * weights.unsqueeze(1)).t()
            found = [left @ student, left @ teacher, left.sum(dim=1), weights @ teacher]
            known = self._sums.get(key)
            self._sums[key] = found if known is None else [a + b for a, b in zip(known, found, strict=True)]
        self._weight += float(weights.sum())

    def of(self, key: str) -> Moments:
        return Moments(*(each.cpu() / self._weight for each in self._sums[key]))

    def _weights(self, tokens: Tensor) -> Tensor:
        """(n, tokens)"""
        weights = torch.full(tokens.shape[:2], self._rest)
        weights[:, 0] = 1.0
        return weights
