"""Every public form of a checkpoint opens to the same tensors and features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints.formats import MODEL, save_head_pickle, save_task_vectors_pickle, tiny_clip, vision_state
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from adamerge.checkpoints import hf_to_open_clip, open_checkpoint, open_clip_to_hf
from adamerge.models.clip import ImageEncoder, build_clip


def features(state: dict[str, Tensor]) -> Tensor:
    encoder = ImageEncoder(build_clip(MODEL).visual)
    encoder.load_state_dict(state)
    images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return encoder(images)


def write(folder: Path, form: str) -> Path:
    """One and the same image encoder in a public form."""
    state, path = vision_state(), folder / "expert.pt"
    if form == "safetensors":
        save_file(state, folder / "expert.safetensors")
        return folder / "expert.safetensors"
    if form == "open_clip state dict":
        torch.save(tiny_clip().state_dict(), path)
    elif form == "open_clip training checkpoint":
        wrapped = {f"module.{k}": v for k, v in tiny_clip().state_dict().items()}
        torch.save({"epoch": 3, "name": "run", "state_dict": wrapped}, path)
    elif form == "open_clip local-dir":
        save_file(
            {k: v.contiguous() for k, v in tiny_clip().state_dict().items()},
            folder / "open_clip_model.safetensors",
        )
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": MODEL}))
        return folder
    elif form.startswith("hf"):
        return _write_hf(folder, state, form)
    else:
        vision, wrapper, kind = form.split()
        save_task_vectors_pickle(path, state, vision=vision, wrapper=wrapper, form=kind)
    return path


def _write_hf(folder: Path, state: dict[str, Tensor], form: str) -> Path:
    renamed = open_clip_to_hf(state)
    if "5" in form:  # transformers 5 dropped the prefix of CLIPVisionModel
        renamed = {k.removeprefix("vision_model."): v for k, v in renamed.items()}
    if "sharded" in form:
        keys = sorted(renamed)
        shards = {
            "model-00001-of-00002.safetensors": keys[::2],
            "model-00002-of-00002.safetensors": keys[1::2],
        }
        for name, some in shards.items():
            save_file({k: renamed[k] for k in some}, folder / name)
        weight_map = {k: name for name, some in shards.items() for k in some}
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": weight_map})
        )
    elif "bin" in form:
        torch.save(renamed, folder / "pytorch_model.bin")
    else:
        save_file(renamed, folder / "model.safetensors")
    return folder


FORMS = [
    "safetensors",
    "open_clip state dict",
    "open_clip training checkpoint",
    "open_clip local-dir",
    "hf 4",
    "hf 5",
    "hf 4 sharded",
    "hf 5 sharded",
    "hf 4 bin",
    "VisualTransformer src.modeling zip",
    "VisualTransformer modeling zip",
    "VisionTransformer src.modeling zip",
    "VisualTransformer src.modeling legacy",
    "VisualTransformer src.modeling plain",
]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_equal_tensors_and_features(tmp_path: Path, form: Any) -> None:
    encoder = open_checkpoint(write(tmp_path, form)).image_encoder()
    expected = vision_state()
    assert set(encoder) == set(expected)
    assert all(torch.equal(encoder[key], expected[key]) for key in expected)
    torch.testing.assert_close(features(encoder), features(expected), rtol=0, atol=1e-6)


def test_the_classes_of_the_files_are_never_imported(tmp_path: Path) -> None:
    import sys

    path = write(tmp_path, "VisualTransformer src.modeling zip")
    assert "src.modeling" not in sys.modules
    open_checkpoint(path)
    assert "src.modeling" not in sys.modules


def test_a_vision_model_without_projection_has_none(tmp_path: Path) -> None:
    renamed = {k: v for k, v in open_clip_to_hf(vision_state()).items() if k != "visual_projection.weight"}
    save_file(renamed, tmp_path / "model.safetensors")
    assert set(open_checkpoint(tmp_path).image_encoder()) == set(vision_state()) - {"visual.proj"}


def test_text_leftovers_are_kept_apart(tmp_path: Path) -> None:
    opened = open_checkpoint(write(tmp_path, "VisualTransformer src.modeling zip"))
    assert set(opened.text_leftovers()) == {"positional_embedding", "logit_scale"}
    assert not any("attn_mask" in key for key in opened.state)


@pytest.mark.parametrize("form", ["zip", "legacy", "plain"])
def test_head_pickles(tmp_path: Path, form: str) -> None:
    weight = torch.randn(5, 8)
    save_head_pickle(tmp_path / "head_Cars.pt", weight, form)
    opened = open_checkpoint(tmp_path / "head_Cars.pt")
    assert opened.keys == "head"
    assert torch.equal(opened.head().weight, weight)
    assert opened.head().bias is None
    assert opened.head().normalize


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_widened(tmp_path: Path, dtype: Any) -> None:
    save_file({k: v.to(dtype) for k, v in vision_state().items()}, tmp_path / "a.safetensors")
    encoder = open_checkpoint(tmp_path / "a.safetensors").image_encoder()
    assert {value.dtype for value in encoder.values()} == {torch.float32}


@given(st.integers(1, 4), st.sampled_from([4, 8, 12]), st.booleans())
@settings(max_examples=25, deadline=None)
def test_the_key_map_is_its_own_inverse(blocks: Any, width: Any, prefixed: Any) -> None:
    state = {
        "visual.class_embedding": torch.randn(width),
        "visual.positional_embedding": torch.randn(5, width),
        "visual.proj": torch.randn(width, 6),
        "visual.conv1.weight": torch.randn(width, 3, 4, 4),
    }
    for name in ("ln_pre", "ln_post"):
        state |= {f"visual.{name}.{kind}": torch.randn(width) for kind in ("weight", "bias")}
    for block in range(blocks):
        stem = f"visual.transformer.resblocks.{block}."
        shapes = {
            "attn.in_proj": 3 * width,
            "attn.out_proj": width,
            "mlp.c_fc": 4 * width,
            "mlp.c_proj": width,
        }
        for name, rows in shapes.items():
            separator = "_" if name == "attn.in_proj" else "."
            columns = 4 * width if name == "mlp.c_proj" else width
            state[f"{stem}{name}{separator}weight"] = torch.randn(rows, columns)
            state[f"{stem}{name}{separator}bias"] = torch.randn(rows)
        for name in ("ln_1", "ln_2"):
            state |= {f"{stem}{name}.{kind}": torch.randn(width) for kind in ("weight", "bias")}
    renamed = open_clip_to_hf(state)
    if not prefixed:
        renamed = {key.removeprefix("vision_model."): value for key, value in renamed.items()}
    back = hf_to_open_clip(renamed)
    assert len(renamed) == len(state) + 4 * blocks
    assert set(back) == set(state)
    assert all(torch.equal(back[key], state[key]) for key in state)


@pytest.mark.parametrize(
    ("model", "rows", "hf_rows", "numel", "hf_numel"),
    [
        ("ViT-B-32-quickgelu", 152, 199, 87_849_216, 87_456_000),
        ("ViT-B-16-quickgelu", 152, 199, 86_192_640, 85_799_424),
        ("ViT-L-14-quickgelu", 296, 391, 303_966_208, 303_179_776),
    ],
)
def test_rows_and_sizes_of_the_reference(
    model: str, rows: int, hf_rows: int, numel: int, hf_numel: int
) -> None:
    """As the papers count them, on the meta device: live rows, rows with q, k and v apart, numbers of elements."""
    from adamerge.merging import layer_table
    from adamerge.merging.layers import row_count
    from adamerge.models.backbone import Backbone

    state = Backbone.of(model).build().state_dict()
    assert row_count(layer_table(state)) == rows
    assert sum(value.numel() for value in state.values()) == numel
    fine_tuned = [key for key in state if key != "visual.proj"]  # Hugging Face's experts leave the projection
    assert row_count(layer_table(fine_tuned, "hf")) == hf_rows
    assert sum(state[key].numel() for key in fine_tuned) == hf_numel


@pytest.mark.parametrize(("model", "rows"), [("ViT-B-32", 158), ("ViT-B-16", 158), ("ViT-L-14", 302)])
def test_state_dict_of_the_published_wrapper(model: str, rows: int) -> None:
    """With the text tensors that the published checkpoints carry along: 158 and 302 rows."""
    from adamerge.checkpoints.keys import TEXT_LEFTOVERS

    with torch.device("meta"):
        clip = build_clip(model)
    kept = [key for key in clip.state_dict() if not key.startswith("transformer.")]
    assert len(kept) == rows
    assert {key for key in kept if not key.startswith("visual.")} == set(TEXT_LEFTOVERS)
