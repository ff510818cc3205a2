"""What enters each linear layer of the transformer blocks, summed over the tokens of some images.

`nn.MultiheadAttention` calls no Linear for query, key and value, and never its out_proj module: a hook there would stay
silent. What enters those two is taken from the norm before the attention and computed anew, and checked against what
the attention gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import layer_norm, linear, scaled_dot_product_attention

from adamerge.architecture import OPEN_CLIP, Architecture, Names, architecture_of
from adamerge.errors import PoolError
from adamerge.merging.precision import wide
from adamerge.models.blocks import blocks

# How far the attention that is computed anew may be from the encoder's own, as a share of it.
_CLOSE = 1e-3


class Images(Protocol):
    """Images of a task by number: (k, 3, H, W) of `images[indices]`."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: slice, /) -> Tensor: ...


@torch.no_grad()
def mean_over_tokens(
    encoder: nn.Module,
    state: Mapping[str, Tensor],
    images: Images,
    summed: Callable[[Tensor], Tensor],
    *,
    device: torch.device,
    batch_size: int = 64,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Tensor]:
    """The mean over all tokens by the key of the weight that they enter, for attention and MLPs.

    Query, key and value share one: that of the tensor in which they are fused.

    Args:
        encoder: without storage; its parameters are `state`.
        images: normalised floats, or uint8 pixels.
        summed: of tokens (n, inputs) the sum of what is averaged; in float32 or wider.

    Raises:
        PoolError: an encoder without transformer blocks, or with another attention or MLP than is known here.
    """
    state = {key: value.to(device) for key, value in state.items()}
    sums: dict[str, Tensor] = {}
    tokens = 0

    def add(key: str, entering: Tensor) -> None:
        nonlocal tokens
        rows = entering.flatten(0, 1)
        found = summed(wide(rows))
        sums[key] = sums[key].add_(found) if key in sums else found
        tokens += len(rows) if key == next(iter(sums)) else 0

    with _watched(encoder, add):
        for first in range(0, len(images), batch_size):
            batch = images[first : first + batch_size]
            functional_call(encoder, state, (batch.to(device),))
            progress(len(batch))
    return {key: (total / tokens).cpu() for key, total in sums.items()}


@contextmanager
def _watched(encoder: nn.Module, add: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Inside, `add` is told the key of each weight and what enters it, of every pass."""
    architecture = architecture_of(encoder)
    handles: list[Any] = []
    for index, block in enumerate(blocks(encoder)):
        handles += _watch_block(block, index, architecture, add)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def block_watched(encoder: nn.Module, index: int, add: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Inside, `add` is told what enters each linear of one block by the key of its weight, and by the key of its gain
    what each norm makes of its tokens before gain and bias."""
    architecture = architecture_of(encoder)
    names, stem, block = architecture.names, architecture.names.block(index), blocks(encoder)[index]

    def normalised(key: str) -> Callable[..., None]:
        return lambda norm, inputs: add(key, layer_norm(inputs[0], norm.normalized_shape, eps=norm.eps))

    handles = _watch_block(block, index, architecture, add)
    try:
        for name in names.norms:
            norm = block.get_submodule(name)
            if not isinstance(norm, nn.LayerNorm):
                raise PoolError(f"{stem}.{name}: known are layer norms, not a {type(norm).__name__}.")
            handles.append(norm.register_forward_pre_hook(normalised(f"{stem}.{name}.weight")))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _watch_block(
    block: nn.Module, index: int, architecture: Architecture, add: Callable[[str, Tensor], None]
) -> list[Any]:
    names, stem = architecture.names, architecture.names.block(index)
    attention: Any = block.get_submodule(names.attention_out.rpartition(".")[0])
    if names is not OPEN_CLIP:
        return _watch_linears(block, attention, stem, names, add)
    if not isinstance(attention, nn.MultiheadAttention) or attention.in_proj_weight is None:
        raise PoolError(
            f"{stem}: statistics are known of torch's MultiheadAttention, not of a {type(attention).__name__}."
        )
    fused = f"{stem}.{names.fused.format(kind='weight')}"
    mixed: list[Tensor] = []

    def before_attention(_module: nn.Module, _inputs: Any, tokens: Tensor) -> None:
        add(fused, tokens)
        mixed[:] = [_mixed(attention, tokens)]
        add(f"{stem}.{names.attention_out}.weight", mixed[0])

    def after_attention(_module: nn.Module, _inputs: Any, outputs: Any) -> None:
        out = attention.out_proj
        found, own = linear(mixed.pop(), out.weight, out.bias), outputs[0]
        if not (found - own).norm() <= _CLOSE * own.norm():
            raise PoolError(f"{stem}: its attention is not computed as nn.MultiheadAttention without a mask.")

    def entering(key: str) -> Callable[..., None]:
        return lambda _module, inputs: add(key, inputs[0])

    return [
        block.get_submodule(names.norms[0]).register_forward_hook(before_attention),
        attention.register_forward_hook(after_attention),
        *(
            block.get_submodule(name).register_forward_pre_hook(entering(f"{stem}.{name}.weight"))
            for name in (names.mlp_in, names.mlp_out)
        ),
    ]


def _watch_linears(
    block: nn.Module, attention: nn.Module, stem: str, names: Names, add: Callable[[str, Tensor], None]
) -> list[Any]:
    """A block of timm's, whose attention calls the linear behind it as a module."""
    if not names.mlp_in:
        raise PoolError(f"Statistics are known of an MLP of two linears, which {stem}.{names.mlp} is not.")
    entering_attention = [
        part.format(kind="weight") for part in ([names.fused] if names.fused else names.apart)
    ]

    def watch(module: nn.Module, keys: list[str]) -> Any:
        def before(_module: nn.Module, inputs: Any) -> None:
            for key in keys:
                add(f"{stem}.{key}", inputs[0])

        return module.register_forward_pre_hook(before)

    linears = (names.attention_out, names.mlp_in, names.mlp_out)
    return [
        watch(attention, entering_attention),
        *(watch(block.get_submodule(name), [f"{name}.weight"]) for name in linears),
    ]


def _mixed(attention: Any, tokens: Tensor) -> Tensor:
    """What enters the linear behind the attention: the values as each head mixes them. In the layout of `tokens`."""
    x = tokens if attention.batch_first else tokens.transpose(0, 1)
    projected = linear(x, attention.in_proj_weight, attention.in_proj_bias)
    heads = [
        part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in projected.chunk(3, dim=-1)
    ]
    mixed = scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
    return mixed if attention.batch_first else mixed.transpose(0, 1)
