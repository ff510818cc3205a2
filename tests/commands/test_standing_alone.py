"""A run folder stands alone: moved away, without base, experts and data, it predicts and is evaluated as before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands.conftest import QUICK, finished
from PIL import Image
from reports.report import BASE, EXPERTS

from adamerge.__main__ import main
from adamerge.tasks.mini import Mini

# One of each form that a finished model has.
FORMS = ("adamerging_taskwise", "symerge", "surgery", "surgery_v2", "symerge_block", "wemoe", "twin", "emr")


def weights_in(home: Path) -> list[str]:
    """The embedded suite's weights in a folder of their own, and the options that name them."""
    shutil.copytree(BASE, home / "weights" / "base")
    for task in ("digits", "signs"):
        shutil.copyfile(EXPERTS / f"{task}.safetensors", home / "weights" / f"{task}.safetensors")
    return [
        f"checkpoints.base={home}/weights/base",
        f"checkpoints.experts='{home}/weights/{{task}}.safetensors'",
    ]


def photos_in(home: Path) -> Path:
    for index, pixels in enumerate(Mini("signs").images("test")[:12]):
        (home / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(home / "photos" / f"{index:02}.png")
    return home / "photos"


def evaluated(folder: Path, out: Path, *words: str) -> dict[str, Any]:
    main(["evaluate", f"run={folder}", f"out={out}", *words])
    found: dict[str, Any] = json.loads(out.read_text())
    return {key: value for key, value in found.items() if key not in ("seconds", "peak_memory_bytes")}


@pytest.mark.parametrize("method", FORMS)
def test_a_run_gives_the_same_digits_without_what_it_was_made_of(home, cache, method, capsys):
    steps = [] if method == "emr" else ["method.schedule.steps=2"]
    quick = QUICK[:3] if method == "emr" else QUICK
    main(["train", f"method={method}", *steps, *quick, *weights_in(home), "suite.limit=40"])
    (folder,) = finished(home).values()
    photos = photos_in(home)
    before = evaluated(folder, home / "before.json")
    recorded = json.loads((folder / "results.json").read_text())
    assert before["tasks"] == recorded["tasks"]
    predict = ["predict", f"images={photos}", "task=signs", "top=3"]
    (folder / "inference.safetensors").rename(home / "kept")  # the road through base and experts
    main([*predict, f"run={folder}", "out=road.csv"])
    (home / "kept").rename(folder / "inference.safetensors")

    shutil.rmtree(home / "weights")
    moved = home / "elsewhere" / folder.name
    moved.parent.mkdir()
    folder.rename(moved)
    shutil.rmtree(home / "outputs")
    after = evaluated(moved, home / "after.json")
    for key in ("tasks", "baselines", "average", "agreement", "method", "rule", "suite"):
        assert after.get(key) == before.get(key), key
    main([*predict, f"run={moved}", "out=alone.csv"])
    assert (home / "alone.csv").read_bytes() == (home / "road.csv").read_bytes()
    form = (
        ["torch_export", "task=signs"]
        if method in ("surgery_v2", "symerge_block", "emr")
        else ["safetensors"]
    )
    if method not in ("wemoe", "twin"):
        main(["export", f"run={moved}", f"format={form[0]}", *form[1:], "out=exported"])
        assert "experts/signs | signs.safetensors" in (home / "exported" / "README.md").read_text()
    capsys.readouterr()
    other = evaluated(moved, home / "other.json", "suite.corruption=contrast")
    assert "how often it agrees with them is not known" in capsys.readouterr().out.replace("\n", " ")
    assert {task["agreement"] for task in other["tasks"].values()} == {None}
    assert all(task["accuracy"] is not None for task in other["tasks"].values())


def test_a_folder_whose_encoder_is_another_architecture_s_is_refused(home, cache, train, capsys):
    run, _ = train("adamerging_taskwise")
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("width: 128", "width: 64", 1))
    with pytest.raises(SystemExit):
        main(["predict", f"run={run}", f"images={photos_in(home)}", "task=signs", "out=x.csv"])
    error = capsys.readouterr().err
    assert "does not hold the encoder of its own config" in error
    assert not (home / "x.csv").exists()


def test_open_clip_s_whole_clip_needs_the_base_for_its_text_and_says_so(home, cache, train, capsys):
    run, _ = train("adamerging_taskwise", *weights_in(home))
    shutil.rmtree(home / "weights")
    with pytest.raises(SystemExit):
        main(["export", f"run={run}", "format=open_clip", "out=out"])
    assert "format=safetensors write the image encoder, from the run folder alone" in " ".join(
        capsys.readouterr().err.split()
    )
