"""Image classifiers of Hugging Face and timm from files to a prediction, through the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from commands.conftest import finished
from models.test_vits import hf_dinov2, hf_vit, saved, shaken
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from adamerge.__main__ import main
from adamerge.picture_fit import Fit
from adamerge.tasks.images import resize_and_crop
from adamerge.tasks.mini import Mini

VIT = (
    "{embed_dim: 16, quick_gelu: false, vision_cfg: {image_size: 8, layers: 2, width: 16, head_width: 8, "
    "patch_size: 4, mlp_ratio: 1.5, no_ln_pre: true, norm_kwargs: {eps: 1.0e-12}}}"
)
PROCESSOR = {
    "size": {"height": 8, "width": 8}, "resample": 2, "image_mean": [0.5] * 3, "image_std": [0.25] * 3,
    "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "do_resize": True,
}  # fmt: skip
NAMES = {"digits": 10, "signs": 12}


def photos(home: Path, task: str, count: int = 24) -> None:
    """<home>/data/<task>/test/<class>/<number>.png, wider than high."""
    source = Mini(task=task)
    for index, label in enumerate(source.labels("test")[:count]):
        folder = home / "data" / task / "test" / f"class {int(label):02}"
        folder.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(source.images("test")[index]).resize((40, 20))
        picture.save(folder / f"{index}.png")
    for label in range(NAMES[task]):
        (home / "data" / task / "test" / f"class {label:02}").mkdir(exist_ok=True)


def words(home: Path) -> list[str]:
    return [
        "suite=folders",
        f"suite.data={home}/data",
        "suite.tasks=[digits,signs]",
        *(
            f"+suite.catalogue.{t}.classes=[{','.join(f'class {i:02}' for i in range(n))}]"
            for t, n in NAMES.items()
        ),
        *("backbone=own", f"backbone.model={VIT}"),
        "checkpoints=files",
        f"checkpoints.base={home}/base",
        f"checkpoints.experts='{home}/{{task}}'",
        f"checkpoints.heads='{home}/{{task}}'",
        *("trainer.accelerator=cpu", "trainer.enable_progress_bar=false"),
    ]


@pytest.fixture
def classifiers(home: Path) -> dict[str, torch.nn.Module]:
    models = {}
    base = shaken(hf_vit, 2, 0)
    saved(base, home / "base")
    for seed, (task, classes) in enumerate(NAMES.items(), 1):
        model = hf_vit(classes).eval()
        mixed = {k: v + 0.1 * torch.randn(v.shape, generator=torch.Generator().manual_seed(seed))
                 for k, v in base.state_dict().items() if not k.startswith("classifier")}  # fmt: skip
        model.load_state_dict(mixed, strict=False)
        with torch.no_grad():
            model.classifier.bias.normal_()
        folder = saved(model, home / task)
        (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
        photos(home, task)
        models[task] = model
    (home / "base" / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return models


def told(file: Path) -> dict[str, str]:
    """{picture: its first class} of what predict wrote."""
    with file.open() as content:
        return {Path(row["file"]).name: row["class"] for row in csv.DictReader(content) if row["rank"] == "1"}


def test_classifiers_of_hugging_face_from_files_to_a_prediction(
    home: Path, cache: Path, classifiers: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["doctor", *words(home)])
    told_by_doctor = capsys.readouterr().out
    assert "vit names" in told_by_doctor
    assert "features not normalised" in told_by_doctor
    main(["merge", "rule=individual", *words(home)])
    main(
        [
            "train",
            "method=adamerging_layerwise",
            "objective=agreement",
            "method.schedule.steps=2",
            *words(home),
        ]
    )
    found = finished(home)
    photos_of = home / "data" / "digits" / "test"
    files = sorted(photos_of.glob("*/*.png"))
    for run in ("individual", "adamerging_layerwise"):
        main(["predict", f"run={found[run]}", f"images={photos_of}", "task=digits", f"out={run}.csv"])

    pixels = [
        torch.from_numpy(resize_and_crop(Image.open(f), Fit(8, "squash", None, "bilinear"))) for f in files
    ]
    images = (torch.stack(pixels).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    with torch.no_grad():
        own = classifiers["digits"](images).logits.argmax(dim=1)
    assert len(own.unique()) > 1
    shown = told(home / "individual.csv")
    assert [shown[f.name] for f in files] == [f"class {int(i):02}" for i in own]

    main(["export", f"run={found['adamerging_layerwise']}", "format=hf", f"out={home}/out"])
    heads = load_file(found["adamerging_layerwise"] / "heads.safetensors")
    with torch.no_grad():
        features = AutoModel.from_pretrained(home / "out").eval()(images).last_hidden_state[:, 0]
    merged = (features @ heads["digits"].T + heads["digits.bias"]).argmax(dim=1)
    shown = told(home / "adamerging_layerwise.csv")
    assert [shown[f.name] for f in files] == [f"class {int(i):02}" for i in merged]


def test_streamed_and_in_memory_merges_of_classifiers_are_one(
    home: Path, cache: Path, classifiers: Any
) -> None:
    main(["merge", "rule=task_arithmetic", *words(home)])
    main(["merge", "rule=task_arithmetic", "evaluate=false", *words(home)])
    merged = sorted(home.glob("outputs/*/*/*/merged.safetensors"))
    assert len(merged) == 2
    one, other = (load_file(file) for file in merged)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_dinov2_of_hugging_face_s_layout_at_another_size_with_prototypes(home: Path, cache: Path) -> None:
    for seed, name in enumerate(("base", "digits")):
        saved(shaken(hf_dinov2, 2, seed), home / name)
    options = ["suite=mini", "suite.tasks=[digits]", "suite.limit=40", "checkpoints.heads=prototypes"]
    model = (
        VIT.replace("image_size: 8", "image_size: 16, ls_init_value: 1.0e-5")
        .replace("1.5", "2")
        .replace("-12", "-6")
    )
    files = [
        f"checkpoints.base={home}/base",
        f"checkpoints.experts='{home}/{{task}}'",
        "backbone=own",
        f"backbone.model={model}",
    ]
    main(["merge", "rule=weight_average", *options, "checkpoints=files", *files, "backbone.resize_positions=true",
          "trainer.accelerator=cpu"])  # fmt: skip
    (folder,) = finished(home).values()
    assert load_file(folder / "merged.safetensors")["visual.positional_embedding"].shape == (17, 16)


def test_timm_by_its_name(home: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import timm

    for seed, name in enumerate(("base", "digits")):
        torch.manual_seed(seed)
        model = timm.create_model("vit_tiny_patch16_224", num_classes=10, depth=12)
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, home / f"{name}.safetensors")
    files = [
        f"checkpoints.base={home}/base.safetensors",
        f"checkpoints.experts='{home}/{{task}}.safetensors'",
    ]
    files += [f"checkpoints.heads='{home}/{{task}}.safetensors'"]
    main(["merge", "rule=weight_average", "backbone=timm:vit_tiny_patch16_224", "suite.tasks=[digits]", "suite.limit=4",
          "checkpoints=files", *files, "trainer.accelerator=cpu"])  # fmt: skip
    (folder,) = finished(home).values()
    results = json.loads((folder / "results.json").read_text())
    assert results["backbone"] == "vit_tiny_patch16_224"
    import yaml

    backbone = yaml.safe_load((folder / "config.yaml").read_text())["backbone"]
    assert (backbone["resize_to"], backbone["interpolation"], backbone["mean"]) == (
        248,
        "bicubic",
        [0.5, 0.5, 0.5],
    )
