"""The residual blocks of a vision transformer: looking at their outputs, changing them, replacing their MLPs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

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


def recompute_blocks(encoder: nn.Module) -> None:
    """Let every residual block keep its input only and run again in the backward pass (activation checkpointing).

    A backward pass comes after `functional_call` has taken the merged parameters out of the encoder, so a block takes
    those it was called with along, and a replaced MLP too. Without gradients nothing changes.
    """
    for block in blocks(encoder):
        block.forward = _Recomputed(block)


class _Recomputed:
    """A block's forward that runs twice."""

    def __init__(self, block: nn.Module) -> None:
        self._block = block
        self._body = _Body(block)

    def __call__(self, tokens: Tensor, *rest: Any, **options: Any) -> Tensor:
        if not torch.is_grad_enabled():
            return self._body.forward(tokens, *rest, **options)
        own: dict[str, Tensor] = {f"block.{name}": value for name, value in self._block.named_parameters()}
        mlp: Any = self._block.mlp
        replaced = mlp.__dict__.get("forward")

        def run(tokens: Tensor) -> Tensor:
            with _forward(mlp, replaced):
                result: Tensor = functional_call(self._body, own, (tokens, *rest), options)
            return result

        result: Tensor = checkpoint(run, tokens, use_reentrant=False, preserve_rng_state=False)
        return result


class _Body(nn.Module):
    """A block's own forward without its hooks, which the outer call runs."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self._forward = block.forward

    def forward(self, *inputs: Any, **options: Any) -> Tensor:
        result: Tensor = self._forward(*inputs, **options)
        return result


@contextmanager
def _forward(module: Any, forward: Callable[..., Tensor] | None) -> Iterator[None]:
    """Inside, the module computes `forward`, where there is one."""
    before = module.__dict__.get("forward")
    if forward is not None:
        module.forward = forward
    try:
        yield
    finally:
        if forward is not None and before is None:
            del module.forward


def mlp_keys(index: int) -> dict[str, str]:
    """The keys of a block's MLP by their short names: fc weight, fc bias, proj weight, proj bias."""
    stem = f"{PREFIX}{index}.mlp"
    return {
        "fc_weight": f"{stem}.c_fc.weight",
        "fc_bias": f"{stem}.c_fc.bias",
        "proj_weight": f"{stem}.c_proj.weight",
        "proj_bias": f"{stem}.c_proj.bias",
    }
