"""SigLIP from files to a prediction, through the command line: what a customer does with open_clip's folders."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import yaml
from commands.conftest import finished
from commands.test_own_vits import NAMES, photos
from PIL import Image
from safetensors.torch import load_file, save_file
from trunks import SIGLIP, saved, tokenizer_folder

from adamerge.__main__ import main
from adamerge.tracking.results import read_results


def words(home: Path, *more: str) -> list[str]:
    return [
        *("suite=folders", f"suite.data={home}/data", "suite.tasks=[digits,signs]"),
        *(
            f"+suite.catalogue.{t}.classes=[{','.join(f'class {i:02}' for i in range(n))}]"
            for t, n in NAMES.items()
        ),
        "backbone=open_clip:nano-SigLIP",
        *("checkpoints=files", f"checkpoints.base={home}/base", f"checkpoints.experts='{home}/{{task}}'"),
        *("trainer.accelerator=cpu", "trainer.enable_progress_bar=false", *more),
    ]


@pytest.fixture
def clips(home: Path) -> dict[str, Any]:
    """A base and two experts a step away from it, as open_clip's folders; pictures, and a tokenizer."""
    model = {
        **SIGLIP,
        "text_cfg": {**SIGLIP["text_cfg"], "hf_tokenizer_name": str(tokenizer_folder(home / "tokens"))},
    }
    (home / "nano-SigLIP.json").write_text(json.dumps(model))
    open_clip.add_model_config(home / "nano-SigLIP.json")
    made = {"base": saved(model, home / "base", 0)}
    start = load_file(home / "base" / "open_clip_model.safetensors")
    for seed, task in enumerate(NAMES, 1):
        made[task] = saved(model, home / task, 0)
        generator = torch.Generator().manual_seed(seed)
        state = {k: v + 0.1 * torch.randn(v.shape, generator=generator) if k.startswith("visual.") else v
                 for k, v in start.items()}  # fmt: skip
        made[task].load_state_dict(state)
        save_file(state, home / task / "open_clip_model.safetensors")
        photos(home, task, 60)
    return made


def of_first(written: Path, files: list[Path]) -> torch.Tensor:
    """(n,) the probability of each picture's first class in what `predict` wrote."""
    with written.open() as content:
        rows = {
            Path(r["file"]).name: float(r["probability"]) for r in csv.DictReader(content) if r["rank"] == "1"
        }
    return torch.tensor([rows[file.name] for file in files])


def test_siglip_from_files_to_a_prediction(
    home: Path, cache: Path, clips: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["doctor", *words(home)])
    said = capsys.readouterr().out
    assert "open_clip names" in said
    assert "problem" not in said

    main(["merge", "rule=individual", *words(home)])
    short = ("method=adamerging_layerwise", "method.schedule.steps=2")
    runs = {"individual": finished(home)["individual"]}
    for objective in ("agreement", "entropy"):
        main(["train", *short, f"objective={objective}", *words(home)])
        found = {file.parent for file in home.glob("outputs/*/*/*/results.json")}
        (runs[objective],) = found - set(runs.values())

    photos_of = home / "data" / "digits" / "test"
    files = sorted(photos_of.glob("*/*.png"))
    for name, run in runs.items():
        main(["predict", f"run={run}", f"images={photos_of}", "task=digits", f"out={name}.csv"])

    # As open_clip itself prepares pictures and encodes them, with the heads of the run.
    heads = load_file(runs["individual"] / "heads.safetensors")

    def by_open_clip(folder: Path) -> tuple[Any, torch.Tensor]:
        loaded, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
        images = torch.stack([transform(Image.open(file)) for file in files])
        with torch.no_grad():
            unit = torch.nn.functional.normalize(loaded.encode_image(images), dim=-1)
        return loaded, (unit @ heads["digits"].T).softmax(dim=-1)

    _, wanted = by_open_clip(home / "digits")
    assert wanted.std(dim=0).max() > 0.005
    torch.testing.assert_close(
        of_first(home / "individual.csv", files), wanted.amax(dim=1), atol=1e-4, rtol=0
    )

    for name in ("agreement", "entropy"):
        main(["export", f"run={runs[name]}", "format=open_clip", f"out={home}/out_{name}"])
        loaded, wanted = by_open_clip(home / f"out_{name}")
        torch.testing.assert_close(
            of_first(home / f"{name}.csv", files), wanted.amax(dim=1), atol=1e-4, rtol=0
        )
        tokens = open_clip.get_tokenizer(f"local-dir:{home}/out_{name}")(["a photo of a bird"])
        assert tokens.tolist() == [[2, 3, 4, 2, 5, 0, 0, 0]]
        assert torch.equal(loaded.logit_bias, clips["base"].logit_bias)
        backbone = yaml.safe_load((runs[name] / "config.yaml").read_text())["backbone"]
        assert (backbone["mean"], backbone["std"], backbone["resize"]) == ([0.5] * 3, [0.5] * 3, "squash")
    coefficients = [(runs[name] / "coefficients.json").read_text() for name in ("agreement", "entropy")]
    assert coefficients[0] != coefficients[1]


def test_pictures_of_another_kind_are_another_run(home: Path, cache: Path, clips: dict[str, Any]) -> None:
    ids = set()
    for resize in ("squash", "shortest"):
        for file in home.glob("*/open_clip_config.json"):
            about = json.loads(file.read_text())
            about["preprocess_cfg"]["resize_mode"] = resize
            file.write_text(json.dumps(about))
        main(["merge", "rule=weight_average", *words(home)])
        ids |= {
            read_results(file.parent).run_id for file in home.glob("outputs/*/weight_average/*/results.json")
        }
    assert len(ids) == 2


def test_without_its_tokenizer_siglip_takes_prototypes(
    home: Path, clips: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAMERGE_CACHE", str(home / "cache"))  # no heads of another test's
    for file in (home / "tokens").iterdir():
        file.unlink()
    with pytest.raises(SystemExit) as stopped:
        main(["merge", "rule=weight_average", *words(home)])
    assert stopped.value.code == 2
    assert "tokenizer" in capsys.readouterr().err
    for task in NAMES:
        (home / "data" / task / "train").symlink_to(home / "data" / task / "test")
    main(
        [
            "merge",
            "rule=weight_average",
            *words(home, "checkpoints.heads=prototypes", "suite.allow_overlap=true"),
        ]
    )
    assert load_file(finished(home)["weight_average"] / "heads.safetensors")["signs"].shape == (12, 16)
