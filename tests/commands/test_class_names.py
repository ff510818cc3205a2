"""Class names that a Hugging Face config.json states beside a classifier (`id2label`)."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from commands.conftest import finished
from commands.test_own_vits import VIT
from models.test_vits import hf_vit, saved, shaken
from PIL import Image

from adamerge.__main__ import main
from adamerge.checkpoints.stated import stated_beside
from adamerge.tasks.class_words import unlike

NAMES = ["wren", "black bird", "crow"]


@pytest.fixture
def words(home: Path) -> list[str]:
    """A base and one expert of three classes, six pictures without labels."""
    for seed, name in enumerate(("base", "birds")):
        saved(shaken(hf_vit, 3, seed), home / name)
    named(home, dict(enumerate(NAMES)))
    (home / "data" / "birds").mkdir(parents=True)
    for index in range(6):
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(home / "data" / "birds" / f"{index}.png")
    return [
        *("suite=folders", f"suite.data={home}/data", "suite.tasks=[birds]", "backbone=own", f"backbone.model={VIT}"),
        *("checkpoints=files", f"checkpoints.base={home}/base", f"checkpoints.experts='{home}/{{task}}'"),
        *(f"checkpoints.heads='{home}/{{task}}'", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false"),
    ]  # fmt: skip


def named(home: Path, names: dict[int, str]) -> None:
    file = home / "birds" / "config.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "id2label": {str(i): name for i, name in names.items()}}))


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_they_name_the_classes_where_nothing_else_does(
    home: Path, cache: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["doctor", *words])
    assert "class names birds: wren, black bird, crow (" in capsys.readouterr().out
    main(["merge", "rule=individual", *words])
    run = finished(home)["individual"]
    main(["predict", f"run={run}", f"images={home}/data/birds", "task=birds", "out=shown.csv", "top=3"])
    with (home / "shown.csv").open() as content:
        assert {row["class"] for row in csv.DictReader(content)} == set(NAMES)
    main(["merge", "rule=weight_average", "evaluate=false", *words])
    (run,) = (file.parent for file in home.glob("outputs/*/weight_average/*/merged.safetensors"))
    main(["predict", f"run={run}", f"images={home}/data/birds", "task=birds", "out=alone.csv", "top=3"])
    with (home / "alone.csv").open() as content:
        assert {row["class"] for row in csv.DictReader(content)} == set(NAMES)


@pytest.mark.parametrize("given", ["[hammer,saw,pliers]", "[wren,crow,black bird]", "[wren,black bird]"])
def test_names_that_contradict_them_are_refused(
    given: str, home: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(["merge", "rule=individual", *words, f"+suite.catalogue.birds.classes={given}"], capsys)
    assert "config.json: id2label" in said
    assert "wren, black bird, crow" in said
    assert given.strip("[]").split(",")[0] in said


def test_data_that_have_them_in_another_order_are_refused(
    home: Path, cache: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for index, name in enumerate(("black_bird", "crow", "wren")):  # as a folder sorts them
        folder = home / "data" / "birds" / name
        folder.mkdir()
        (home / "data" / "birds" / f"{index}.png").rename(folder / "0.png")
        (home / "data" / "birds" / f"{index + 3}.png").rename(folder / "1.png")
    said = refused(["merge", "rule=individual", *words], capsys)
    assert "label 0 of the data is 'black_bird', and row 0 of its head is 'wren'" in said
    named(home, {0: "Black Bird", 1: "crow", 2: "wren"})
    main(["merge", "rule=individual", *words])


def test_what_is_alike_in_other_spellings_is_no_contradiction() -> None:
    assert (
        unlike(["annual crop land", "tench", "3"], ["AnnualCrop", "tench, Tinca tinca", "3 - three"]) is None
    )
    assert unlike(["cat", "wild cat"], ["wild cat", "cat"]) == 0
    assert unlike(["a", "b"], ["a", "b", "c"]) == 2
    assert unlike(["a", "b"], ["a", "c"]) == 1


@pytest.mark.parametrize("names", [{0: "LABEL_0", 1: "LABEL_1"}, {0: "a", 2: "b"}, {}])
def test_what_names_nothing_is_not_taken(names: dict[int, str], tmp_path: Path) -> None:
    content = {"model_type": "vit", "id2label": {str(i): name for i, name in names.items()}}
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert stated_beside(tmp_path).classes == ()
