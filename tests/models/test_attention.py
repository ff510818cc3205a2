"""The attention that a pass takes: unchanged in float32, plain products in bfloat16, the same numbers either way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from checkpoints.formats import MODEL
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from adamerge.models.attention import suited_attention
from adamerge.models.backbone import Backbone
from adamerge.models.blocks import recompute_blocks
from adamerge.models.clip import ImageEncoder, build_visual


class _Operations(TorchDispatchMode):
    """Notes the name of every operation that is carried out."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(operation))
        return operation(*args, **(kwargs or {}))

    @property
    def fused(self) -> bool:
        return any("flash_attention" in name for name in self.names)


def encoder() -> ImageEncoder:
    torch.manual_seed(0)
    return ImageEncoder(build_visual(MODEL), Backbone.of(MODEL))


@contextmanager
def watched() -> Iterator[_Operations]:
    with _Operations() as operations:
        yield operations


def mixed(on: bool) -> Any:
    return torch.autocast("cpu", torch.bfloat16) if on else nullcontext()


def gradients(model: ImageEncoder, bfloat16: bool) -> tuple[Tensor, dict[str, Tensor], bool]:
    """Features, the gradients of their squares, and whether torch's fused attention was taken."""
    size = model.pictures.size
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))
    model.zero_grad()
    with watched() as operations:
        with mixed(bfloat16):
            features = model(images)
        features.float().square().sum().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return features.detach().float(), found, operations.fused


def test_float32_keeps_the_fused_attention() -> None:
    assert gradients(encoder(), bfloat16=False)[2]


def test_bfloat16_takes_plain_products_and_gives_the_same_numbers() -> None:
    exact, exact_gradients, _ = gradients(encoder(), bfloat16=False)
    features, found, fused = gradients(encoder(), bfloat16=True)
    assert not fused
    assert torch.nn.functional.cosine_similarity(features, exact).min() > 0.999
    for name, gradient in exact_gradients.items():
        assert (found[name] - gradient).norm() <= 0.05 * gradient.norm() + 1e-4, name


def test_recomputed_blocks_take_the_same_attention_in_both_runs() -> None:
    plain = gradients(encoder(), bfloat16=True)
    model = encoder()
    recompute_blocks(model)
    features, found, fused = gradients(model, bfloat16=True)
    assert not fused
    torch.testing.assert_close(features, plain[0], rtol=0, atol=0)
    for name, gradient in plain[1].items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=0)


@pytest.mark.parametrize(("tokens", "fused"), [(50, False), (160, False), (161, True), (577, True)])
def test_long_sequences_keep_the_fused_attention(tokens: int, fused: bool) -> None:
    query = torch.randn(1, 1, tokens, 8, dtype=torch.bfloat16)
    with watched() as operations, suited_attention(query, tokens):
        torch.nn.functional.scaled_dot_product_attention(query, query, query)
    assert operations.fused == fused
