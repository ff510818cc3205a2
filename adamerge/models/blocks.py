"""The residual blocks of a vision transformer: looking at their outputs, changing them, replacing their MLPs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from adamerge.errors import PoolError

PREFIX = "visual.transformer.resblocks."


def blocks(encoder: nn.Module) -> nn.ModuleList:
    """The residual blocks of an open_clip image encoder.

    Raises:
        PoolError: another architecture.
    """
    transformer = getattr(getattr(encoder, "visual", None), "transformer", None)
    found = getattr(transformer, "resblocks", None)
    if not isinstance(found, nn.ModuleList):
        raise PoolError(f"This method needs a vision transformer with {PREFIX}*; the encoder has none.")
    return found


@contextmanager
def after_blocks(encoder: nn.Module, change: Callable[[int, Tensor], Tensor]) -> Iterator[None]:
    """Inside the block, every residual block's tokens (n, tokens, width) become `change(index, tokens)`."""

    def hook(index: int) -> Callable[..., Tensor]:
        return lambda _module, _inputs, tokens: change(index, tokens)

    handles = [block.register_forward_hook(hook(i)) for i, block in enumerate(blocks(encoder))]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def replaced_mlps(encoder: nn.Module, forward: Callable[[int, Tensor], Tensor]) -> Iterator[None]:
    """Inside the block, the MLP of residual block i computes `forward(i, tokens)` instead of its own."""
    mlps: list[Any] = [block.mlp for block in blocks(encoder)]
    for index, mlp in enumerate(mlps):
        mlp.forward = lambda tokens, index=index: forward(index, tokens)
    try:
        yield
    finally:
        for mlp in mlps:
            del mlp.forward


def mlp_keys(index: int) -> dict[str, str]:
    """The keys of a block's MLP by their short names: fc weight, fc bias, proj weight, proj bias."""
    stem = f"{PREFIX}{index}.mlp"
    return {
        "fc_weight": f"{stem}.c_fc.weight",
        "fc_bias": f"{stem}.c_fc.bias",
        "proj_weight": f"{stem}.c_proj.weight",
        "proj_bias": f"{stem}.c_proj.bias",
    }
