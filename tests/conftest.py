"""Small pools that every part is tested on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")

import pytest
import torch
from torch import Tensor, nn

from adamerge.architecture import OPEN_CLIP, Architecture
from adamerge.merging import Head, Pool
from adamerge.merging.pool import stack_task_vectors

TASKS = ("signs", "digits", "scenes")
CLASSES = {"signs": 4, "digits": 5, "scenes": 3}


class TinyEncoder(nn.Module):
    """Two layers and a fused projection with open_clip's key names: enough structure for every identity."""

    def __init__(self, width: int = 6, embed: int = 4) -> None:
        super().__init__()
        sizes: dict[str, Any] = {
            "embed_dim": embed,
            "width": width,
            "tokens": 4,
            "blocks": 0,
            "attention_heads": 1,
            "patch": 2,
        }
        self.backbone = Architecture(OPEN_CLIP, **sizes, activation="gelu")
        self.visual: Any = nn.Module()
        self.visual.conv1 = nn.Conv2d(3, width, 2, stride=2, bias=False)
        self.visual.attn = nn.Module()
        self.visual.attn.in_proj_weight = nn.Parameter(torch.randn(3 * width, width) / width**0.5)
        self.visual.attn.in_proj_bias = nn.Parameter(torch.randn(3 * width) * 0.1)
        self.visual.ln_post = nn.LayerNorm(width)
        self.visual.proj = nn.Parameter(torch.randn(width, embed) / width**0.5)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.visual.conv1(images).flatten(2).transpose(1, 2)
        mixed = nn.functional.linear(tokens, self.visual.attn.in_proj_weight, self.visual.attn.in_proj_bias)
        query, key, value = mixed.chunk(3, dim=-1)
        tokens = tokens + torch.softmax(query @ key.transpose(1, 2), dim=-1) @ value
        return self.visual.ln_post(tokens.mean(dim=1)) @ self.visual.proj


def make_pool(seed: int = 0, dtype: torch.dtype = torch.float64, tasks: tuple[str, ...] = TASKS) -> Pool:
    torch.manual_seed(seed)
    encoder = TinyEncoder()
    base = {key: value.detach().to(dtype) for key, value in encoder.state_dict().items()}
    experts = {task: {k: v + 0.3 * torch.randn_like(v) for k, v in base.items()} for task in tasks}
    heads = {task: Head(3.0 * torch.randn(CLASSES.get(task, 4), 4, dtype=dtype)) for task in tasks}
    vectors = stack_task_vectors(base, experts.values(), len(tasks), dtype)
    skeleton = TinyEncoder().to("meta").requires_grad_(False)
    return Pool(skeleton, base, vectors, tasks, heads)


TINY_VIT = {
    "embed_dim": 4,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 4, "layers": 2, "width": 8, "head_width": 4, "patch_size": 2},
    "text_cfg": {"context_length": 4, "vocab_size": 8, "width": 4, "heads": 1, "layers": 1},
}


def make_vit_pool(
    seed: int = 0, dtype: torch.dtype = torch.float32, tasks: tuple[str, ...] = TASKS, spread: float = 0.3
) -> Pool:
    """A pool over open_clip's own vision transformer: two blocks of width 8, five tokens."""
    from adamerge.models.backbone import Backbone
    from adamerge.models.clip import ImageEncoder, build_clip

    torch.manual_seed(seed)
    encoder = ImageEncoder(build_clip(TINY_VIT).visual)
    base = {key: value.detach().to(dtype) for key, value in encoder.state_dict().items()}
    experts = {task: {k: v + spread * torch.randn_like(v) for k, v in base.items()} for task in tasks}
    heads = {task: Head(torch.randn(CLASSES.get(task, 4), 4, dtype=dtype)) for task in tasks}
    vectors = stack_task_vectors(base, experts.values(), len(tasks), dtype)
    return Pool(Backbone.of(TINY_VIT).build(), base, vectors, tasks, heads)


@pytest.fixture
def double_precision() -> Iterator[Any]:
    """What a test makes is float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def pool() -> Pool:
    return make_pool()


@pytest.fixture
def images() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {task: torch.randn(6, 3, 4, 4, generator=generator, dtype=torch.float64) for task in TASKS}


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def home(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with its own outputs."""
    monkeypatch.setenv("ADAMERGE_CACHE", str(cache))
    monkeypatch.delenv("ADAMERGE_OUTPUTS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path
