"""Pictures are classified by a run alone, without the suite's data."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands.conftest import QUICK, finished
from PIL import Image

from adamerge.__main__ import main
from adamerge.runs.trained import run_in, trained_method
from adamerge.tasks.mini import Mini


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture
def photos(home: Path) -> Path:
    (home / "photos" / "more").mkdir(parents=True)
    for index, pixels in enumerate(Mini("signs").images("test")[:24]):
        Image.fromarray(pixels).save(home / "photos" / ("more" if index % 2 else "") / f"{index:02}.png")
    return home / "photos"


def test_predictions_are_the_method_s(
    train: Any, home: Path, photos: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = train("adamerging_layerwise", steps=2)
    capsys.readouterr()
    main(["predict", f"run={run}", "images=photos", "task=signs", "top=2"])
    shown = capsys.readouterr().out
    opened = run_in(run)
    pool, data = opened.open()
    method = trained_method(opened, run, pool)
    with torch.no_grad():
        shares = method.logits(data.images["signs"][torch.arange(24)], "signs").softmax(dim=-1)
    names = data.tasks[1].classes
    found = rows(home / "predictions.csv")
    assert [row["rank"] for row in found] == ["1", "2"] * 24
    for row in found:
        own = shares[int(Path(row["file"]).stem)]
        value, label = own.sort(descending=True)
        place = int(row["rank"]) - 1
        assert row["class"] == names[label[place]]
        assert float(row["probability"]) == pytest.approx(value[place].item(), abs=2e-6)
    main(["predict", f"run={run}", "images=photos", "task=signs", "top=2", "out=found.json"])
    content = json.loads((home / "found.json").read_text())
    assert [one["file"] for one in content] == [row["file"] for row in found[::2]]
    for row, own in zip(found, (own for one in content for own in one["predictions"]), strict=True):
        assert own["class"] == row["class"]
        assert own["probability"] == pytest.approx(float(row["probability"]), abs=1e-6)
        assert set(own) == {"class", "probability"}  # the task was given
    with pytest.raises(SystemExit):
        main(["predict", f"run={run}", "images=photos", "task=signs", "out=found.txt"])
    assert "should end in .csv or .json" in capsys.readouterr().err
    assert "more/01.png" in shown
    assert "... and 4 more" in shown
    assert "24 pictures classified" in shown


def test_several_tasks_and_what_is_not_sure(
    train: Any, home: Path, photos: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = train("adamerging_layerwise", steps=2)
    alone = {}
    for task in ("signs", "digits"):
        main(["predict", f"run={run}", "images=photos", f"task={task}", "top=3", f"out={task}.csv"])
        alone[task] = rows(home / f"{task}.csv")
    main(["predict", f"run={run}", "images=photos", "task=[signs,digits]", "top=3", "out=both.csv"])
    both = rows(home / "both.csv")
    assert [row["task"] for row in both] == (["signs"] * 3 + ["digits"] * 3) * 24
    for task, own in alone.items():
        assert [{k: row[k] for k in own[0]} for row in both if row["task"] == task] == own

    words = ["images=photos", "task=[signs,digits]", "top=3", "at_least=0.4"]
    capsys.readouterr()
    main(["predict", f"run={run}", *words, "out=sure.csv"])
    assert "not sure" in capsys.readouterr().out
    sure, likely = rows(home / "sure.csv"), [row for row in both if float(row["probability"]) >= 0.4]
    assert [row for row in sure if row["class"]] == likely
    told = {(row["file"], row["task"]) for row in likely}
    empty = [row for row in sure if not row["class"]]
    assert {(row["file"], row["task"]) for row in empty} == {(r["file"], r["task"]) for r in both} - told
    assert empty
    assert all(row["rank"] == row["probability"] == "" for row in empty)
    main(["predict", f"run={run}", *words, "out=sure.json"])
    content = json.loads((home / "sure.json").read_text())
    assert [one["task"] for one in content if not one["predictions"]] == [row["task"] for row in empty]
    main(["predict", f"run={run}", "images=photos", "task=signs", "top=1", "at_least=0.4", "out=one.csv"])
    assert set(rows(home / "one.csv")[0]) == {"file", "rank", "class", "probability"}
    for word, said in {
        "task=[signs,sings]": "no task 'sings'",
        "task=[]": "task",
        "at_least=1.5": "at_least",
    }.items():
        with pytest.raises(SystemExit):
            main(["predict", f"run={run}", "images=photos", word])
        assert said in capsys.readouterr().err


def test_only_the_weights_are_needed(
    home: Path, cache: Path, photos: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The data's folder is gone and no head is cached: the run itself knows its heads and class names."""
    for task in ("digits", "signs"):
        for index, name in enumerate(("zero", "one", "two")):
            (home / "data" / task / name).mkdir(parents=True)
            Image.fromarray(Mini(task).images("test")[index]).save(home / "data" / task / name / "0.png")
    words = ["suite=folders", "suite.data=data", "suite.tasks=[digits,signs]", "checkpoints=mini"]
    main(["merge", *words, *QUICK[1:3]])
    run = finished(home)["task_arithmetic"]
    shutil.rmtree(home / "data")
    main(["predict", f"run={run}", f"images={photos}/00.png", "task=signs", "top=9", "out=one.csv"])
    found = rows(home / "one.csv")
    assert {row["file"] for row in found} == {"00.png"}
    assert sorted(row["class"] for row in found) == ["one", "two", "zero"]
    assert sum(float(row["probability"]) for row in found) == pytest.approx(1, abs=1e-5)


def test_a_picture_that_cannot_be_read_is_named_and_skipped(
    train: Any, home: Path, photos: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["merge", "rule=individual", *QUICK[:3]])
    run = finished(home)["individual"]
    (photos / "03.jpg").write_bytes(b"no picture")
    with pytest.raises(SystemExit) as stop:
        main(["predict", f"run={run}", "images=photos", "task=digits"])
    assert stop.value.code == 2
    told = capsys.readouterr()
    assert "24 pictures classified" in told.out
    assert "1 of 25 pictures could not be read; predictions.csv holds the others." in told.err
    assert "03.jpg cannot be read as a picture (cannot identify" in told.err
    assert len(rows(home / "predictions.csv")) == 24 * 3
    before = (home / "predictions.csv").read_bytes()
    for change, text in [
        ({"images": "photos/03.jpg"}, "None of the 1 pictures"),
        ({"images": "nowhere"}, "no folder nowhere"),
        ({"task": "digit"}, "did you mean 'digits'"),
        ({"out": "no/where.csv"}, "no folder no"),
        ({"run": "photos"}, "no run folder"),
    ]:
        options = {"run": run, "images": "photos", "task": "digits", **change}
        with pytest.raises(SystemExit) as stop:
            main(["predict", *(f"{key}={value}" for key, value in options.items())])
        assert stop.value.code == 2
        assert text in capsys.readouterr().err
    assert (home / "predictions.csv").read_bytes() == before


def test_predict_reads_a_picture_as_a_run_does(train: Any, home: Path) -> None:
    """A JPEG that its tag turns, and 16 bits: the same class as the upright picture of 8 bits."""
    main(["merge", "rule=individual", *QUICK[:3]])
    run = finished(home)["individual"]
    tag = Image.Exif()
    tag[0x0112] = 6
    for index, pixels in enumerate(Mini("digits").images("test")[:12]):
        upright = Image.fromarray(pixels).convert("L")
        for name in ("upright", "turned", "deep"):
            (home / name).mkdir(exist_ok=True)
        upright.save(home / "upright" / f"{index:02}.png")
        upright.transpose(Image.Transpose.ROTATE_90).save(home / "turned" / f"{index:02}.png", exif=tag)
        deep = np.asarray(upright).astype(np.uint16) * 257
        Image.fromarray(deep).save(home / "deep" / f"{index:02}.png")
    for name in ("upright", "turned", "deep"):
        main(["predict", f"run={run}", f"images={name}", "task=digits", f"out={name}.csv"])
    assert rows(home / "turned.csv") == rows(home / "upright.csv")
    assert rows(home / "deep.csv") == rows(home / "upright.csv")
