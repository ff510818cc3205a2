"""`checkpoints.heads=prototypes` through the command line, on the embedded suite and on folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands.conftest import finished
from composing import settings
from PIL import Image
from reports.inputs import digit_folders, on_folders
from reports.report import BASE, EXPERTS
from torch.nn.functional import normalize

from adamerge.__main__ import main
from adamerge.checkpoints import open_checkpoint
from adamerge.checkpoints.heads import heads_of_tensors
from adamerge.models.clip import ImageEncoder, build_clip
from adamerge.tasks.mini import Mini


def on_mini(*words: str) -> list[str]:
    options = (
        "suite.tasks=[digits]",
        "suite.limit=60",
        "trainer.accelerator=cpu",
        "checkpoints.heads=prototypes",
    )
    return ["merge", "rule=weight_average", *options, *words]


def heads_in(folder: Any) -> Any:
    return heads_of_tensors(open_checkpoint(folder / "heads.safetensors").state)


@pytest.mark.parametrize("shots", [None, 2])
def test_heads_are_the_class_means_of_the_base_s_features(home: Path, cache: Path, shots: Any) -> None:
    main(on_mini(*([] if shots is None else [f"checkpoints.shots={shots}"])))
    (folder,) = finished(home).values()
    model = settings("merge").backbone.model
    encoder = ImageEncoder(build_clip(model).visual).eval()
    encoder.load_state_dict(open_checkpoint(BASE).image_encoder())
    source = Mini(task="digits")
    pixels = torch.from_numpy(np.stack([np.asarray(p) for p in source.images("train")])).permute(0, 3, 1, 2)
    labels = torch.as_tensor(source.labels("train"))
    with torch.no_grad():
        unit = normalize(torch.cat([encoder(part) for part in pixels.split(200)]).double(), dim=-1)
    means = normalize(torch.stack([unit[labels == c].mean(0) for c in range(10)]), dim=-1)
    expected = 100 * (means - means.mean(0))
    found = heads_in(folder)["digits"].weight.double()
    if shots is None:
        assert torch.allclose(found, expected, atol=1e-3)
    else:  # two pictures of each class stand for it roughly, and are not all of them
        assert not torch.allclose(found, expected, atol=1e-1)
        assert float(torch.nn.functional.cosine_similarity(found, expected).mean()) > 0.5


def test_ridge_is_an_alternative(home: Path, cache: Path) -> None:
    for heads in ("prototypes", "ridge"):
        main(on_mini("checkpoints.shots=4", f"checkpoints.heads={heads}"))
    found = [file.parent for file in home.glob("outputs/*/*/*/results.json")]
    biases = [heads_in(folder)["digits"].bias for folder in found]
    assert sorted(bias is None for bias in biases) == [False, True]
    accuracies = [
        json.loads((folder / "results.json").read_text())["tasks"]["digits"]["pretrained"] for folder in found
    ]
    assert min(accuracies) > 0.2


def test_pictures_that_made_the_heads_are_part_of_the_run(home: Path, cache: Path) -> None:
    data = digit_folders(home / "data")
    for path in sorted((data / "digits").glob("*/*.png")):
        split = "train" if int(path.stem) < 5 else "test"
        target = data / "digits" / split / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    for folder in (data / "digits").iterdir():
        if folder.name not in ("train", "test"):
            folder.rmdir()
    words = ["merge", "rule=weight_average", *on_folders(data), "checkpoints.heads=prototypes"]
    main(words)
    first = {path.parent for path in home.glob("outputs/*/*/*/results.json")}
    main(words)
    assert {path.parent for path in home.glob("outputs/*/*/*/results.json")} == first
    (folder,) = first
    assert json.loads((folder / "lineage.json").read_text())["data"]["digits"].keys() == {"train", "test"}
    one = data / "digits" / "train" / "zero" / "000.png"
    Image.fromarray(255 - np.asarray(Image.open(one))).save(one)
    main(words)
    assert len(list(home.glob("outputs/*/*/*/results.json"))) == 2


def test_without_training_labels_the_reason_is_said(
    home: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = home / "data" / "digits"
    flat.mkdir(parents=True)
    for index, picture in enumerate(Mini(task="digits").images("test")[:4]):
        Image.fromarray(np.asarray(picture)).save(flat / f"{index}.png")
    words = ["suite=folders", f"suite.data={home / 'data'}", "suite.tasks=[digits]", "backbone=mini"]
    files = [f"checkpoints.base={BASE}", f"checkpoints.experts={{digits: {EXPERTS / 'digits.safetensors'}}}"]
    with pytest.raises(SystemExit) as stopped:
        main(
            [
                "merge",
                "rule=weight_average",
                *words,
                "checkpoints=files",
                *files,
                "checkpoints.heads=prototypes",
            ]
        )
    assert stopped.value.code == 2
    assert "has no train pictures" in capsys.readouterr().err


def test_an_expert_is_finetuned_through_prototypes_where_there_is_no_text_tower(
    home: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tower = home / "tower.safetensors"
    from adamerge.checkpoints import save_tensors

    save_tensors(tower, open_checkpoint(BASE).image_encoder(), {"format": "pt"})
    quick = ["steps=3", "batch_size=8", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false"]
    main(
        [
            *("finetune", "suite=mini", "task=digits", "~backbone.model.text_cfg", "suite.limit=60", *quick),
            *("checkpoints=foundation", f"checkpoints.base={tower}"),
        ]
    )
    assert "digits:" in capsys.readouterr().out
    expert = next(cache.rglob("experts/digits.safetensors"))
    assert open_checkpoint(expert).image_encoder().keys() == open_checkpoint(tower).image_encoder().keys()
