"""A head is applied in one place, whatever form it is given in; what would be only part of it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints.formats import published_classes, vision_state
from conftest import make_vit_pool
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import linear, normalize

from adamerge.__main__ import main
from adamerge.checkpoints import open_checkpoint
from adamerge.checkpoints.heads import heads_of_tensors, tensors_of_heads
from adamerge.errors import CheckpointError
from adamerge.merging import Head
from adamerge.methods import Surgery, Tinting
from adamerge.models.heads import head_digest, open_head

WEIGHT, BIAS = torch.randn(3, 8), torch.tensor([0.5, -1.0, 2.0])
FEATURES = 3.0 * torch.randn(5, 8)
NORMALISED = linear(normalize(FEATURES, dim=-1), WEIGHT, BIAS)


def layer() -> nn.Linear:
    made = nn.Linear(8, 3)
    made.load_state_dict({"weight": WEIGHT, "bias": BIAS})
    return made


@pytest.mark.parametrize(
    "given",
    [
        Head(WEIGHT, BIAS),
        (WEIGHT, BIAS),
        layer(),
        *(
            {f"{prefix}weight": WEIGHT, f"{prefix}bias": BIAS}
            for prefix in ("", "classification_head.", "head.", "fc.", "classifier.", "module.", "model.head.")
        ),
        {**{f"model.{key}": value for key, value in vision_state().items()}, "model.head.weight": WEIGHT,
         "model.head.bias": BIAS},
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else type(given).__name__,
)  # fmt: skip
def test_every_form_is_one_head(given: Any) -> None:
    head = open_head(given)
    assert torch.equal(head.logits(FEATURES), NORMALISED)
    assert head.classes == 3


def test_a_bias_of_zeros_is_none() -> None:
    assert open_head({"weight": WEIGHT, "bias": torch.zeros(3)}).bias is None
    assert torch.equal(open_head(WEIGHT).logits(FEATURES), linear(normalize(FEATURES, dim=-1), WEIGHT))


def save_pickled(path: Any, normalises: Any) -> None:
    with published_classes() as made:
        head = made["ClassificationHead"]()
        head.normalize = normalises
        head.weight, head.bias = nn.Parameter(WEIGHT), nn.Parameter(BIAS)
        torch.save(head, path)


def test_the_file_says_whether_features_are_normalised(tmp_path: Path) -> None:
    plain = linear(FEATURES, WEIGHT, BIAS)
    save_pickled(tmp_path / "normal.pt", True)
    save_pickled(tmp_path / "plain.pt", False)
    torch.save({"weight": WEIGHT, "bias": BIAS, "normalize": False}, tmp_path / "mapping.pt")
    main(["convert", str(tmp_path / "plain.pt"), "--out", str(tmp_path / "plain.safetensors")])
    assert torch.equal(open_head(tmp_path / "normal.pt").logits(FEATURES), NORMALISED)
    for name in ("plain.pt", "mapping.pt", "plain.safetensors"):
        assert torch.equal(open_head(tmp_path / name).logits(FEATURES), plain), name


def test_an_option_says_it_where_the_file_does_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = linear(FEATURES, WEIGHT, BIAS)
    given = {"weight": WEIGHT, "bias": BIAS}
    assert torch.equal(open_head(given, normalize=False).logits(FEATURES), plain)
    assert torch.equal(open_head(given, normalize=True).logits(FEATURES), NORMALISED)
    assert torch.equal(open_head(Head(WEIGHT, BIAS), normalize=False).logits(FEATURES), NORMALISED)
    said = {**given, "normalize": torch.tensor(False)}
    assert torch.equal(open_head(said, normalize=False).logits(FEATURES), plain)
    with pytest.raises(CheckpointError, match=r"says normalize=False, and checkpoints\.normalize=True"):
        open_head(said, normalize=True)
    assert not caplog.text
    open_head({"weight": WEIGHT})  # a zero-shot head
    assert not caplog.text
    open_head(given)
    assert "checkpoints.normalize=false" in caplog.text


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"weight": WEIGHT, "bias": BIAS[:2]}, r"bias is \(2,\), expected \(3,\)"),
        ({"weight": WEIGHT.to(torch.int8)}, "of type int8"),
        ({"head.weight": WEIGHT, "fc.weight": WEIGHT}, "2 heads: head.weight, fc.weight"),
        ({"head.weight": WEIGHT, "norm.weight": BIAS}, "more than a linear head: norm.weight"),
        ({"0.weight": WEIGHT, "2.weight": WEIGHT}, "no classification head"),
        (
            {"vision_model.embeddings.patch_embedding.weight": WEIGHT, "classifier.weight": WEIGHT},
            "mean of the last patch tokens",
        ),
    ],
    ids=lambda given: None if isinstance(given, dict) else given[:12],
)
def test_what_is_not_one_linear_head_is_refused(state: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        open_head(state)


def test_heads_of_one_file(tmp_path: Path) -> None:
    heads = {"a": Head(WEIGHT), "b": Head(WEIGHT, BIAS), "c.d": Head(WEIGHT, BIAS, normalize=False)}
    heads = {task: head.map(torch.clone) for task, head in heads.items()}  # a file holds no shared storage
    save_file(tensors_of_heads(heads), tmp_path / "heads.safetensors")
    assert set(load_file(tmp_path / "heads.safetensors")) == {
        "a",
        "b",
        "b.bias",
        "c.d",
        "c.d.bias",
        "c.d.normalize",
    }
    read = heads_of_tensors(open_checkpoint(tmp_path / "heads.safetensors").state)
    assert {task: head_digest(head) for task, head in read.items()} == {
        t: head_digest(h) for t, h in heads.items()
    }
    assert len({head_digest(head) for head in heads.values()}) == 3


def test_methods_classify_with_the_bias_and_tinting_starts_from_it() -> None:
    pool = make_vit_pool()
    weight, features = pool.heads["signs"].weight, torch.randn(2, 4)
    pool.heads["signs"] = Head(weight, torch.arange(4.0), normalize=False)
    expected = features @ weight.t() + torch.arange(4.0)
    for method in (Surgery(pool), Tinting(pool), Tinting(pool, layer="visual.proj")):
        torch.testing.assert_close(method.classify(features, "signs"), expected)
    assert Tinting(pool).head("digits").bias.tolist() == [0.0] * 5
    assert Tinting(pool, head_start="xavier").head("signs").bias.tolist() == [0.0] * 4
    moved = pool.map(torch.Tensor.double).heads["signs"]
    assert moved.bias.dtype == moved.weight.dtype == torch.float64
    assert not moved.normalize
