"""The residual blocks of a vision transformer: looking at their outputs, changing them, replacing their MLPs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from adamerge.architecture import architecture_of
from adamerge.errors import PoolError
from adamerge.models.attention import suited_attention


def blocks(encoder: nn.Module) -> list[nn.Module]:
    """The residual blocks of an image encoder, from the input on.

    Raises:
        PoolError: an architecture without blocks, or a module that does not say its own.
    """
    architecture = architecture_of(encoder)
    if not architecture.blocks:
        raise PoolError("This method works on the blocks of a vision transformer; the encoder has none.")
    return [encoder.get_submodule(architecture.names.block(i)) for i in range(architecture.blocks)]


def mlps(encoder: nn.Module) -> list[nn.Module]:
    """The MLP of every residual block."""
    name = architecture_of(encoder).names.mlp
    return [block.get_submodule(name) for block in blocks(encoder)]


def mlp_keys(encoder: nn.Module) -> list[dict[str, str]]:
    """The keys of every block's MLP, as `Names.mlp_keys`.

    Raises:
        PoolError: an encoder without blocks, or whose MLPs are not two linears with an activation between them.
    """
    names = architecture_of(encoder).names
    if blocks(encoder) and not names.mlp_in:
        raise PoolError(
            "This method works on MLPs of two linears with an activation between them; those of this encoder are "
            "others (SwiGLU, or a norm inside)."
        )
    return [names.mlp_keys(index) for index in range(len(blocks(encoder)))]


def activation(encoder: nn.Module, index: int) -> nn.Module:
    """The activation in the MLP of a residual block."""
    names = architecture_of(encoder).names
    return encoder.get_submodule(f"{names.block(index)}.{names.activation}")


def tokens_before_blocks(encoder: nn.Module, state: dict[str, Tensor], images: Tensor) -> Tensor:
    """The tokens (n, tokens, width) that enter the first block, with the parameters `state`."""
    captured: list[Tensor] = []
    hook = blocks(encoder)[0].register_forward_pre_hook(lambda _module, inputs: captured.append(inputs[0]))
    try:
        functional_call(encoder, state, (images,))
    finally:
        hook.remove()
    return captured[0]


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
    replaced: list[Any] = mlps(encoder)
    for index, mlp in enumerate(replaced):
        mlp.forward = lambda tokens, index=index: forward(index, tokens)
    try:
        yield
    finally:
        for mlp in replaced:
            del mlp.forward


def recompute_blocks(encoder: nn.Module) -> None:
    """Let every residual block keep its input only and run again in the backward pass (activation checkpointing).

    A backward pass comes after `functional_call` has taken the merged parameters out of the encoder, so a block takes
    those it was called with along, and a replaced MLP too. Without gradients nothing changes.
    """
    for block, mlp in zip(blocks(encoder), mlps(encoder), strict=True):
        block.forward = _Recomputed(block, mlp)  # type: ignore[method-assign,assignment]


class _Recomputed:
    """A block's forward that runs twice."""

    def __init__(self, block: nn.Module, mlp: nn.Module) -> None:
        self._block = block
        self._mlp = mlp
        self._body = _Body(block)

    def __call__(self, tokens: Tensor, *rest: Any, **options: Any) -> Tensor:
        if not torch.is_grad_enabled():
            return self._body.forward(tokens, *rest, **options)
        own: dict[str, Tensor] = {f"block.{name}": value for name, value in self._block.named_parameters()}
        mlp: Any = self._mlp
        replaced = mlp.__dict__.get("forward")

        def run(tokens: Tensor) -> Tensor:
            # The second run comes from the backward pass, outside of whatever the encoder's own pass had set.
            with _forward(mlp, replaced), suited_attention(tokens, tokens.shape[1]):
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
