"""One room knows what tensors are called: the names' table against the libraries' modules, and nothing beside it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import adamerge
from adamerge.architecture import HF_CLIP, OPEN_CLIP, architecture_of, family_of
from adamerge.checkpoints import hf_to_open_clip, open_clip_to_hf
from adamerge.errors import PoolError
from adamerge.models.backbone import Backbone
from adamerge.models.clip import activation, image_size

PACKAGE = Path(adamerge.__file__).parent
# The names of tensors and modules that no other file may spell out.
NAMES = re.compile(
    r"\bvisual\.|\bvision_model\.|resblocks|in_proj|\b[qkv]_proj|out_proj|\bc_fc\b|\bc_proj\b|\bmlp\.|\bfc[12]\.|"
    r"\bln_(1|2|pre|post)\b|\bconv1\b|class_embedding|patch_embedding|layer_norm[12]|pre_layrnorm|post_layernorm"
)
HOMES = {
    "architecture.py",
    # What other libraries call things: PEFT's targets, and the parts of torch's attention.
    *(
        "checkpoints/adapters.py",
        "checkpoints/lora_names.py",
        "settings/commands.py",
        "statistics/entering.py",
    ),
}
MODELS = {
    "mini": {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "layers": 3, "width": 64, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 1, "layers": 1},
    },
    "ViT-B-32": "ViT-B-32",
    "ViT-L-14-336-quickgelu": "ViT-L-14-336-quickgelu",
}


def spelled(source: str) -> Iterator[str]:
    """The texts of a file that are no docstrings: constants, and the literal parts of formatted strings."""
    tree = ast.parse(source)
    told = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.value
        elif isinstance(node, ast.Attribute):
            yield f".{node.attr}"


@pytest.mark.parametrize(
    "file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE))
)
def test_names_of_tensors_stand_in_their_table(file: Path) -> None:
    if str(file.relative_to(PACKAGE)) in HOMES:
        return
    found = [text for text in spelled(file.read_text(encoding="utf-8")) if NAMES.search(text)]
    assert not found, f"{file} spells out {found}; ask adamerge.architecture or the pool's backbone"


def test_a_name_is_seen() -> None:
    source = '"""visual.proj here is told."""\nwidth = base["visual.proj"]\nb = f"{x}.resblocks.{i}"\nm = v.ln_post\n'
    assert {text for text in spelled(source) if NAMES.search(text)} == {
        "visual.proj",
        ".resblocks.",
        ".ln_post",
    }


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_the_backbone_says_what_the_module_has(model: object) -> None:
    backbone = Backbone.of(model)  # type: ignore[arg-type]
    shapes, names = backbone.shapes(), backbone.names
    assert tuple(shapes[names.positions].shape) == (backbone.tokens, backbone.width)
    assert tuple(shapes[names.projection].shape) == (backbone.width, backbone.embed_dim)
    assert tuple(shapes[names.patches].shape) == (backbone.width, 3, backbone.patch, backbone.patch)
    assert {names.block_of(key) for key in shapes} == {None, *range(backbone.blocks)}
    assert backbone.pictures.size == image_size(model)  # type: ignore[arg-type]
    assert backbone.activation == activation(model)  # type: ignore[arg-type]
    encoder = backbone.build()
    assert architecture_of(encoder) is backbone
    block = encoder.get_submodule(names.block(backbone.blocks - 1))
    assert block.attn.num_heads == backbone.attention_heads  # type: ignore[union-attr]
    act = encoder.get_submodule(f"{names.block(0)}.{names.activation}")
    assert type(act).__name__ == {"gelu": "GELU", "quick_gelu": "QuickGELU"}[backbone.activation]


@pytest.mark.parametrize("names", [OPEN_CLIP, HF_CLIP], ids=["open_clip", "hf"])
def test_the_table_names_every_tensor(names: object) -> None:
    shapes = Backbone.of(MODELS["mini"]).shapes()  # type: ignore[arg-type]
    if names is HF_CLIP:
        shapes = open_clip_to_hf({key: torch.zeros(value.shape) for key, value in shapes.items()})
    assert isinstance(names, type(OPEN_CLIP))
    assert all(key.startswith(names.starts()) for key in shapes)
    of_blocks = {key for key in shapes if names.block_of(key) is not None}
    told = {f"{names.block(i)}.{name}" for i in range(3) for name in names.tensors_of_block()}
    assert of_blocks == told
    assert {key for key in shapes if family_of(key) is names} == of_blocks
    assert {key for key in shapes if names.is_gain(key)} == {
        key for key, value in shapes.items() if value.ndim == 1 and key.endswith("weight")
    }
    assert all(key in shapes for key in names.mlp_keys(2).values())


def test_query_key_and_value_have_the_rows_of_the_fused_tensor() -> None:
    fused = f"{OPEN_CLIP.block(11)}.attn.in_proj_bias"
    assert OPEN_CLIP.parts(fused) == tuple(
        f"visual.transformer.resblocks.11.attn.{part}_proj.bias" for part in "qkv"
    )
    assert [OPEN_CLIP.is_key_bias(part) for part in OPEN_CLIP.parts(fused)] == [False, True, False]
    assert OPEN_CLIP.parts("visual.proj") == ("visual.proj",)
    weight = torch.randn(12, 4)
    there = open_clip_to_hf({f"{OPEN_CLIP.block(1)}.attn.in_proj_weight": weight})
    assert torch.equal(there["vision_model.encoder.layers.1.self_attn.k_proj.weight"], weight[4:8])
    (back,) = hf_to_open_clip(there).values()
    assert torch.equal(back, weight)


def test_a_module_that_does_not_say_its_architecture() -> None:
    with pytest.raises(PoolError, match=r"architecture, which a Linear does not say.*\n.*open_pool"):
        architecture_of(nn.Linear(2, 2))
