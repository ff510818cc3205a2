"""An exported model loads in the program it is for, and gives the run's features."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands.conftest import QUICK, finished
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import linear, normalize

from adamerge.__main__ import main
from adamerge.checkpoints import fingerprint, hf_to_open_clip, open_checkpoint
from adamerge.errors import PoolError
from adamerge.export.hf import vision_config, vision_state
from adamerge.files import folder_atomically
from adamerge.models.clip import ImageEncoder, build_clip
from adamerge.models.pictures import PictureRules
from adamerge.runs.backbones import model_of
from adamerge.runs.trained import load_without_data

TASKS = ("digits", "signs")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Callable[[str], Path]:
    """runs(method): a run folder of two tasks and two steps, made once."""
    home = tmp_path_factory.mktemp("runs")

    def run(method: str) -> Path:
        if method not in finished(home):
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("ADAMERGE_CACHE", str(cache))
                patch.setenv("ADAMERGE_OUTPUTS", str(home / "outputs"))
                main(["train", f"method={method}", "suite.steps=2", *QUICK[:3]])
        return finished(home)[method]

    return run


@pytest.fixture
def images() -> Tensor:
    pixels = torch.randint(0, 256, (5, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    return PictureRules.of(32).normalise(pixels.to(torch.uint8))


@torch.no_grad()
def expected(run: Path, images: Tensor, task: str | None = None) -> Tensor:
    _, method, _ = load_without_data(run)
    return method.features(images) if task is None else method.logits(images, task)


@torch.no_grad()
def features_of(weights: Path, run: Path, images: Tensor) -> Tensor:
    """Features of exported weights in an encoder of their own."""
    encoder = ImageEncoder(build_clip(model_of(load_without_data(run)[0].settings.backbone)).visual)
    encoder.load_state_dict(open_checkpoint(weights).image_encoder())
    return encoder(images)


def equal(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def export(run: Path, form: str, out: Path, *words: str) -> Path:
    main(["export", f"run={run}", f"format={form}", f"out={out}", *words])
    return out


def fails(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["export", *words])
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_open_clip_loads_the_whole_clip(runs: Any, home: Path, images: Any) -> None:
    import open_clip

    run = runs("adamerging_layerwise")
    out = export(run, "open_clip", home / "out")
    clip, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{out}")
    with torch.no_grad():
        equal(clip.eval().encode_image(images), expected(run, images))
        prompt = open_clip.get_tokenizer(f"local-dir:{out}")(["a stop traffic sign."])
        assert clip.encode_text(prompt).shape == (1, 64)
    assert preprocess.transforms[-1].mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    heads, state = load_file(out / "heads.safetensors"), load_file(out / "state.safetensors")
    equal(linear(normalize(expected(run, images), dim=-1), heads["signs"]), expected(run, images, "signs"))
    assert torch.equal(state["merging.values"], load_file(run / "state.safetensors")["merging.values"])


def test_hugging_face_folder(runs: Any, home: Path, images: Any) -> None:
    run = runs("adamerging_layerwise")
    out = export(run, "hf", home / "out")
    config = json.loads((out / "config.json").read_text())
    assert config["hidden_act"] == "gelu"
    assert config["num_attention_heads"] == 4
    equal(features_of(out, run, images), expected(run, images))


def test_hugging_face_folder_in_transformers(runs: Any, home: Path, images: Any) -> None:
    transformers = pytest.importorskip("transformers")
    run = runs("adamerging_layerwise")
    out = export(run, "hf", home / "out")
    encoder = transformers.CLIPVisionModelWithProjection.from_pretrained(out).eval()
    with torch.no_grad():
        equal(encoder(pixel_values=images).image_embeds, expected(run, images))
    assert transformers.CLIPImageProcessor.from_pretrained(out).size["shortest_edge"] == 32


def test_safetensors(runs: Any, home: Path, images: Any) -> None:
    run = runs("adamerging_layerwise")
    out = export(run, "safetensors", home / "out")
    equal(features_of(out / "image_encoder.safetensors", run, images), expected(run, images))


@pytest.mark.parametrize(
    ("method", "task"), [("adamerging_layerwise", None), ("surgery", "signs"), ("individual", "digits")]
)
def test_a_program_takes_any_number_of_images(
    runs: Any, home: Path, images: Any, method: str, task: Any
) -> None:
    run = runs(method)
    out = export(run, "torch_export", home / "out", *([f"task={task}"] if task else []))
    program = torch.export.load(out / "model.pt2").module()
    for count in (1, 5):
        equal(program(images[:count]), expected(run, images[:count], task))


@pytest.mark.parametrize("task", [None, "signs"])
def test_onnx(runs: Any, home: Path, images: Any, task: Any) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    run = runs("adamerging_layerwise")
    out = export(run, "onnx", home / "out", *([f"task={task}"] if task else []))
    session = onnxruntime.InferenceSession(out / "model.onnx")
    for count in (1, 5):
        (given,) = session.run(["logits" if task else "features"], {"images": images[:count].numpy()})
        equal(torch.from_numpy(given), expected(run, images[:count], task))


def test_onnx_without_its_packages(
    runs: Any, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adamerge.export.program.find_spec", lambda name: None)
    error = fails(capsys, f"run={runs('adamerging_layerwise')}", "format=onnx", "out=out")
    assert "adamerge[onnx]" in error
    assert list(home.iterdir()) == []


def test_a_trained_head_is_exported_with_its_bias(runs: Any, home: Path, images: Any) -> None:
    run = runs("tinting")
    heads = load_file(export(run, "safetensors", home / "out") / "heads.safetensors")
    logits = linear(normalize(expected(run, images), dim=-1), heads["signs"], heads["signs.bias"])
    equal(logits, expected(run, images, "signs"))
    assert "alone do not" not in (home / "out" / "README.md").read_text()


def test_given_heads_are_exported_with_bias_and_normalisation(home: Path, images: Any) -> None:
    from safetensors.torch import save_file

    given = {"weight": torch.randn(12, 64), "bias": torch.randn(12)}
    save_file({**given, "normalize": torch.tensor(False)}, home / "signs.safetensors")
    save_file({name: value[:10].clone() for name, value in given.items()}, home / "digits.safetensors")
    main(["merge", "rule=task_arithmetic", f"checkpoints.heads={home}/{{task}}.safetensors", *QUICK[:3]])
    run = finished(home)["task_arithmetic"]
    for form in ("safetensors", "torch_export"):
        heads = load_file(export(run, form, home / form) / "heads.safetensors")
        features = expected(run, images)
        equal(linear(features, heads["signs"], heads["signs.bias"]), expected(run, images, "signs"))
        digits = linear(normalize(features, dim=-1), heads["digits"], heads["digits.bias"])
        equal(digits, expected(run, images, "digits"))
        card = (home / form / "README.md").read_text()
        assert 'heads["digits"].T + heads["digits.bias"]' in card
        assert "not normalised before the heads of signs." in card
    program = torch.export.load(
        export(run, "torch_export", home / "one", "task=signs") / "model.pt2"
    ).module()
    equal(program(images), linear(features, given["weight"], given["bias"]))


def test_the_card_says_what_it_is(runs: Any, home: Path) -> None:
    run = runs("surgery")
    out = export(run, "open_clip", home / "out")
    text = (out / "README.md").read_text()
    results = json.loads((run / "results.json").read_text())
    assert f"{100 * results['average']:.1f}" in text
    assert results["run_id"] in text
    assert "_target_: adamerge.methods.surgery.Surgery" in text
    assert "alone do not give the results below** for digits, signs" in text
    weights = hashlib.sha256((out / "open_clip_model.safetensors").read_bytes()).hexdigest()
    expert = load_without_data(run)[0].paths["experts/signs"]
    assert weights in text
    assert hashlib.sha256(Path(expert).read_bytes()).hexdigest() in text
    assert str(Path(expert).parent) not in text


def test_refusals(runs: Any, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, single = runs("adamerging_layerwise"), runs("individual")
    (home / "full").mkdir()
    (home / "full" / "mine").write_text("mine")
    assert "not empty" in fails(capsys, f"run={run}", "out=full")
    assert [p.name for p in (home / "full").iterdir()] == ["mine"]
    assert "torch_export" in fails(capsys, f"run={run}", "format=hf", "task=signs", "out=out")
    assert "no single merged encoder" in fails(capsys, f"run={single}", "out=out")
    assert "task=<one of digits, signs>" in fails(capsys, f"run={single}", "format=torch_export", "out=out")
    assert "no task 'sign'" in fails(capsys, f"run={run}", "format=torch_export", "task=sign", "out=out")
    error = fails(capsys, "format=pickle")
    assert all(part in error for part in ("3 mistakes", "run: ", "out: ", "format: ", "'hf'"))
    assert [p.name for p in home.iterdir()] == ["full"]


def test_a_base_without_a_text_tower_is_said(
    runs: Any, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from omegaconf import OmegaConf

    run = home / "run"
    run.mkdir()
    for file in runs("adamerging_layerwise").iterdir():
        if file.is_file():
            (run / file.name).write_bytes(file.read_bytes())
    cfg = OmegaConf.load(run / "config.yaml")
    encoder = open_checkpoint(cfg.checkpoints.base).image_encoder()
    torch.save(encoder, home / "base.pt")
    cfg.checkpoints.base = str(home / "base.pt")
    OmegaConf.save(cfg, run / "config.yaml")
    # As if the run had been made with that file: a run folder does not serve with other weights than its own.
    lineage = json.loads((run / "lineage.json").read_text())
    lineage["uses"]["base"] = {"path": str(home / "base.pt"), "identity": fingerprint(home / "base.pt")}
    (run / "lineage.json").write_text(json.dumps(lineage))
    assert "no text tower" in fails(capsys, f"run={run}", "out=out")
    assert set(hf_to_open_clip(load_file(export(run, "hf", home / "out") / "model.safetensors"))) == set(
        encoder
    )


def test_quick_gelu_and_what_hugging_face_does_not_have() -> None:
    model: dict[str, Any] = {
        "embed_dim": 8,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 8, "layers": 2, "width": 16, "head_width": 8, "patch_size": 4},
        "text_cfg": {"context_length": 8, "vocab_size": 12, "width": 8, "heads": 1, "layers": 1},
    }
    state = ImageEncoder(build_clip(model).visual).state_dict()
    config = vision_config(state, model)
    assert config["hidden_act"] == "quick_gelu"
    assert (config["intermediate_size"], config["num_attention_heads"], config["projection_dim"]) == (
        64,
        2,
        8,
    )
    pooled = {**model, "vision_cfg": {**model["vision_cfg"], "pool_type": "avg"}}
    with pytest.raises(PoolError, match="pool_type is 'avg'"):
        vision_config(state, pooled)
    with pytest.raises(PoolError, match="no place for visual.extra"):
        vision_state({**state, "visual.extra": torch.zeros(1)})


def test_a_failed_export_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="half-way"), folder_atomically(tmp_path / "out") as folder:
        (folder / "model").write_text("half")
        raise ValueError("half-way")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    with folder_atomically(tmp_path / "out") as folder:
        (folder / "model").write_text("whole")
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "model"]
