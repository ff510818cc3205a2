"""Experts of other libraries with linear heads of their own, from files to logits that the customer's library gives."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints.adapting import MODEL, CLIPVisionModelWithProjection, adapt, hugging_face
from commands.conftest import finished
from commands.test_own_vits import NAMES, photos
from models.test_vits import saved, shaken, timm_backbone, timm_vit
from peft import PeftModel
from PIL import Image
from torch import Tensor, nn

from adamerge.__main__ import main
from adamerge.models.pictures import MEAN, STD
from adamerge.picture_fit import Fit
from adamerge.tasks.images import resize_and_crop

TRAININGS = ("adamerging_guided", "adamerging_layerwise")
CLIP = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 8, "layers": 2, "width": 16, "head_width": 8, "patch_size": 4},
    "text_cfg": {"context_length": 8, "vocab_size": 20, "width": 16, "heads": 2, "layers": 2},
}


def suite(home: Path) -> list[str]:
    return [
        *("suite=folders", f"suite.data={home}/data", "suite.tasks=[digits,signs]"),
        *(
            f"+suite.catalogue.{t}.classes=[{','.join(f'class {i:02}' for i in range(n))}]"
            for t, n in NAMES.items()
        ),
        *("trainer.accelerator=cpu", "trainer.enable_progress_bar=false"),
    ]


def trained(home: Path, words: list[str]) -> dict[str, Path]:
    """Looked at by doctor, merged, and trained with the experts' guidance and by entropy; the run folders."""
    main(["doctor", *words])
    for rule in ("individual", "task_arithmetic"):
        main(["merge", f"rule={rule}", *words])
    for method in TRAININGS:
        main(["train", f"method={method}", "method.schedule.steps=2", "method.schedule.batch_size=4", *words])
    return finished(home)


@torch.no_grad()
def predicted(
    run: Path, home: Path, task: str, logits: Callable[[Tensor], Tensor], mean: Any = MEAN, std: Any = STD
) -> None:
    """Assert that `predict` gives the probabilities of the customer's own logits for the pictures of a task."""
    folder = home / "data" / task / "test"
    files = sorted(folder.glob("*/*.png"))
    out = home / f"{run.parent.name}_{task}.csv"
    main(["predict", f"run={run}", f"images={folder}", f"task={task}", f"out={out}", f"top={NAMES[task]}"])
    found = torch.zeros(len(files), NAMES[task])
    rows = {file.name: index for index, file in enumerate(files)}
    with out.open() as content:
        for row in csv.DictReader(content):
            found[rows[Path(row["file"]).name], int(row["class"].removeprefix("class "))] = float(
                row["probability"]
            )
    shown = torch.stack([torch.tensor(resize_and_crop(Image.open(f), Fit(8))) for f in files])
    images = (shown / 255 - torch.tensor(mean)).div(torch.tensor(std)).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, logits(images).softmax(dim=-1), atol=1e-5, rtol=0)
    assert float(found.std(dim=0).max()) > 0.005  # the pictures matter


def through(encode: Callable[[Tensor], Any], head: nn.Module) -> Callable[[Tensor], Tensor]:
    """From pictures to logits; of Hugging Face's outputs the image embeddings are the features."""

    def logits(images: Tensor) -> Tensor:
        features = encode(images)
        found: Tensor = head(getattr(features, "image_embeds", features))
        return found

    return logits


def exported(run: Path, home: Path, form: str) -> Path:
    out = home / f"{form}_{run.parent.name}"
    if not out.exists():
        main(["export", f"run={run}", f"format={form}", f"out={out}"])
    return out


def linear_of(model: nn.Module) -> nn.Linear:
    return next(layer for layer in model.children() if isinstance(layer, nn.Linear))


@pytest.fixture
def clips(home: Path) -> dict[str, nn.Module]:
    from adamerge.models.clip import build_clip

    torch.manual_seed(0)
    base = build_clip(CLIP)
    torch.save(base.state_dict(), home / "base.pt")
    models = {}
    for task, prefix in (("digits", "fc"), ("signs", "classification_head")):
        visual = build_clip(CLIP).visual
        visual.load_state_dict(
            {k: v + 0.1 * torch.randn_like(v) for k, v in base.visual.state_dict().items()}
        )
        model = nn.Module()
        model.visual = visual
        model.add_module(prefix, nn.Linear(16, NAMES[task]))
        torch.save(model.state_dict(), home / f"{task}.pt")
        photos(home, task)
        models[task] = model
    return models


def inline(model: Any) -> str:
    """A configuration as a value of an option."""
    return json.dumps(model).replace('"', "")


def moved(base: nn.Module, seed: int) -> dict[str, Tensor]:
    """The model's tensors, each a step away."""
    generator = torch.Generator().manual_seed(seed)
    return {k: v + 0.1 * torch.randn(v.shape, generator=generator) for k, v in base.state_dict().items()}


def of_clips(home: Path, **more: Any) -> list[str]:
    model = inline({**CLIP, **more})
    return [
        *suite(home),
        *("backbone=own", f"backbone.model={model}", "checkpoints=files", f"checkpoints.base={home}/base.pt"),
        *(f"checkpoints.{kind}='{home}/{{task}}.pt'" for kind in ("experts", "heads")),
    ]


def test_clips_with_linear_heads_of_their_own(
    home: Path,
    cache: Path,
    clips: Any,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    import open_clip

    words = of_clips(home)
    main(["doctor", *words])
    assert "checkpoints.normalize=false" in capsys.readouterr().out
    words += ["checkpoints.normalize=false"]
    runs = trained(home, words)
    said = capsys.readouterr().out
    assert "10 classes, with bias, features not normalised" in said
    assert "checkpoints.normalize" not in said
    assert "which is not used" not in caplog.text

    for task, model in clips.items():
        head = linear_of(model)
        predicted(runs["individual"], home, task, through(model.visual, head))
        for method in TRAININGS:
            whole = open_clip.create_model(f"local-dir:{exported(runs[method], home, 'open_clip')}").eval()
            predicted(runs[method], home, task, through(whole.encode_image, head))


def test_a_backbone_without_its_text_tower_is_no_whole_clip(
    home: Path, clips: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = of_clips(home, text_cfg=None)
    main(["merge", "rule=task_arithmetic", "evaluate=false", *words])
    (run,) = (file.parent for file in home.glob("outputs/*/*/*/merged.safetensors"))
    for command in (["export", f"run={run}", f"out={home}/out"], ["merge", *words, "checkpoints.heads=null"]):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main(command)
        assert stopped.value.code == 2
        assert "text tower" in capsys.readouterr().err


def test_vision_transformers_of_timm(home: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import timm

    base = shaken(timm_vit, 2, 0)
    saved(base, home / "base")
    models: dict[str, Any] = {}
    for seed, (task, classes) in enumerate(NAMES.items(), 1):
        models[task] = timm_vit(classes).eval()
        models[task].load_state_dict(
            {k: v for k, v in moved(base, seed).items() if "head" not in k}, strict=False
        )
        models[task].head.bias.data.normal_()
        saved(models[task], home / task)
        photos(home, task)
    half = ["backbone.mean=[0.5,0.5,0.5]", "backbone.std=[0.25,0.25,0.25]"]
    runs = trained(home, [
        *suite(home), "backbone=own", f"backbone.model={inline(timm_backbone())}", *half, "checkpoints=files",
        f"checkpoints.base={home}/base/model.safetensors",
        *(f"checkpoints.{kind}='{home}/{{task}}/model.safetensors'" for kind in ("experts", "heads")),
    ])  # fmt: skip
    assert "features not normalised" in capsys.readouterr().out
    for task, model in models.items():
        predicted(runs["individual"], home, task, model, [0.5] * 3, [0.25] * 3)
        for method in TRAININGS:
            out = exported(runs[method], home, "timm")
            loaded = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
            predicted(runs[method], home, task, through(loaded, model.head), [0.5] * 3, [0.25] * 3)
            assert "timm.create_model" in (out / "README.md").read_text()
    with pytest.raises(SystemExit):
        main(["export", f"run={runs['task_arithmetic']}", "format=peft", f"out={home}/peft"])
    said = capsys.readouterr().err
    assert "plain vision transformer" in said
    assert "format=timm" in said


def test_lora_experts_of_a_clip_of_hugging_face(
    home: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = hugging_face()
    base.save_pretrained(home / "base")
    heads = {}
    for seed, (task, classes) in enumerate(NAMES.items(), 1):
        adapt(hugging_face(), home / task, seed, target_modules=["q_proj", "v_proj", "fc1"])
        heads[task] = nn.Linear(8, classes)
        torch.save({**heads[task].state_dict(), "normalize": False}, home / f"{task}.pt")
        photos(home, task)
    model = {k: v for k, v in MODEL.items() if k != "text_cfg"}
    words = [
        *suite(home), "backbone=own", f"backbone.model={inline(model)}", "checkpoints=files",
        f"checkpoints.base={home}/base", f"checkpoints.experts='{home}/{{task}}'",
        f"checkpoints.heads='{home}/{{task}}.pt'",
    ]  # fmt: skip
    runs = trained(home, words)
    assert "lora names" in capsys.readouterr().out
    for task, head in heads.items():
        own = PeftModel.from_pretrained(hugging_face(), home / task).eval()
        predicted(runs["individual"], home, task, through(own, head))
        for method in TRAININGS:
            out = exported(runs[method], home, "peft")
            merged = PeftModel.from_pretrained(hugging_face(), out).eval()
            whole = CLIPVisionModelWithProjection.from_pretrained(exported(runs[method], home, "hf")).eval()
            for loaded in (merged, whole):
                predicted(runs[method], home, task, through(loaded, head))
    main(["merge", "rule=ties", *words])
    with pytest.raises(SystemExit):
        main(["export", f"run={finished(home)['ties']}", "format=peft", f"out={home}/of_ties"])
    said = capsys.readouterr().err
    assert "as factors it would be no smaller" in said
    assert "format=hf" in said
