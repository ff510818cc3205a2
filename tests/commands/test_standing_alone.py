"""A run folder stands alone: moved away, without base, experts and data, it predicts and is evaluated as before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands.conftest import QUICK, finished, stored
from PIL import Image
from reports.report import BASE, EXPERTS
from safetensors.torch import load_file, save_file

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
def test_a_run_gives_the_same_digits_without_what_it_was_made_of(
    home: Path, cache: Path, method: Any, capsys: pytest.CaptureFixture[str]
) -> None:
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


def test_a_merge_without_evaluation_stands_alone_too(
    home: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pictures, base and experts are gone; it predicts and is exported as the evaluated one."""
    words = ["merge", "rule=ties", *QUICK[:3], *weights_in(home)]
    main([*words, "evaluate=false"])
    (alone,) = (path.parent for path in home.glob("outputs/mini/ties/*/merged.safetensors"))
    main([*words, "suite.limit=40"])
    (evaluated,) = finished(home).values()
    shutil.rmtree(home / "weights")
    photos = photos_in(home)
    for name, folder in {"alone": alone, "evaluated": evaluated}.items():
        main(["predict", f"images={photos}", "task=signs", "top=3", f"run={folder}", f"out={name}.csv"])
        main(["export", f"run={folder}", "format=safetensors", f"out={name}"])
    assert (home / "alone.csv").read_bytes() == (home / "evaluated.csv").read_bytes()
    assert "stop" in (home / "alone.csv").read_text()
    for file in ("image_encoder.safetensors", "heads.safetensors"):
        assert stored(home / "alone" / file) == stored(home / "evaluated" / file), file
    card = (home / "alone" / "README.md").read_text()
    assert "it was merged and not evaluated" in card
    assert "experts/signs | signs.safetensors" in card
    assert "it was merged and not evaluated" not in (home / "evaluated" / "README.md").read_text()
    assert evaluated_accuracy(alone, home / "a.json") == evaluated_accuracy(evaluated, home / "b.json")


def evaluated_accuracy(folder: Path, out: Path) -> dict[str, Any]:
    found = evaluated(folder, out, "suite.limit=20")
    return {task: values["accuracy"] for task, values in found["tasks"].items()}


def test_classes_that_only_the_pictures_name_leave_a_merge_without_heads(
    home: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["suite=folders", "suite.data=/nowhere", "suite.tasks=[digits,signs]", "backbone=mini"]
    words += ["checkpoints=mini", "rule=ties", "evaluate=false"]
    main(["merge", *words])
    said = " ".join(capsys.readouterr().out.split())
    assert "only the pictures' folders or tables name the classes of digits, signs" in said
    main(["merge", *words, "+suite.catalogue.signs.classes={a: stop, b: yield}"])
    said = " ".join(capsys.readouterr().out.split())
    assert "name the classes of digits." in said
    (folder,) = (path.parent for path in home.glob("outputs/folders/ties/*/heads.safetensors"))
    main(["predict", f"run={folder}", f"images={photos_in(home)}", "task=signs", "top=2", "out=x.csv"])
    assert {line.split(",")[2] for line in (home / "x.csv").read_text().splitlines()[1:]} == {"stop", "yield"}
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["predict", f"run={folder}", "images=photos", "task=digits", "out=y.csv"])
    assert "this run has no task 'digits'" in capsys.readouterr().err


def test_head_files_go_along_and_their_rows_have_no_words_without_the_pictures(
    home: Path, cache: Path, train: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = train("adamerging_taskwise")
    heads = load_file(run / "heads.safetensors")
    for task in ("digits", "signs"):
        save_file({"weight": heads[task]}, home / f"{task}_head.safetensors")
    words = ["merge", *QUICK[:3], "evaluate=false", f"checkpoints.heads='{home}/{{task}}_head.safetensors'"]
    main(words)
    (folder,) = (p.parent for p in home.glob("outputs/mini/task_arithmetic/*/heads.safetensors"))
    main(["predict", f"run={folder}", f"images={photos_in(home)}", "task=signs", "out=x.csv"])
    assert ",class " in (home / "x.csv").read_text()
    for task in ("digits", "signs"):
        (home / f"{task}_head.safetensors").unlink()
    capsys.readouterr()
    main(words)
    assert "the files of checkpoints.heads are not here" in " ".join(capsys.readouterr().out.split())
    assert (
        len(list(home.glob("outputs/mini/task_arithmetic/*/merged.safetensors"))) == 2
    )  # another input, another id


def test_a_folder_whose_encoder_is_another_architecture_s_is_refused(
    home: Path, cache: Path, train: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = train("adamerging_taskwise")
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("width: 128", "width: 64", 1))
    with pytest.raises(SystemExit):
        main(["predict", f"run={run}", f"images={photos_in(home)}", "task=signs", "out=x.csv"])
    error = capsys.readouterr().err
    assert "does not hold the encoder of its own config" in error
    assert not (home / "x.csv").exists()


def test_open_clip_s_whole_clip_needs_the_base_for_its_text_and_says_so(
    home: Path, cache: Path, train: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = train("adamerging_taskwise", *weights_in(home))
    shutil.rmtree(home / "weights")
    with pytest.raises(SystemExit):
        main(["export", f"run={run}", "format=open_clip", "out=out"])
    assert "format=safetensors write the image encoder, from the run folder alone" in " ".join(
        capsys.readouterr().err.split()
    )
