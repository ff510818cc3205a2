"""The CLIP suites: every task of every origin is described rightly, and replicas of the layouts are read."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from composing import settings
from PIL import Image

from adamerge.errors import ConfigError, DataError
from adamerge.runs.images import open_data, open_tasks
from adamerge.tasks.prompts import prompts
from adamerge.tasks.sources import Listed
from adamerge.tasks.task import build_tasks

COUNTS = {"eight": 8, "fourteen": 14, "twenty": 20}


def config(suite: str, *words: str) -> Any:
    return settings("train", f"suite={suite}", "checkpoints=random", "backbone=mini", *words)


@pytest.mark.parametrize("origin", ["hub", "torchvision", "folders"])
@pytest.mark.parametrize("suite", COUNTS)
def test_every_origin_of_a_suite_is_valid(suite: str, origin: str) -> None:
    cfg = config(suite, f"suite.origin={origin}", "suite.data=somewhere")
    plain = cfg.suite.model_dump()
    assert len(plain["tasks"]) == COUNTS[suite]
    for task in plain["tasks"]:
        entry = plain["catalogue"][task]
        assert entry["source"]["_target_"].startswith("adamerge.tasks.sources.")
        assert tuple(entry["classes"]) == prompts(task).classes
        assert set(entry["sizes"]) == {"train", "test"}


def test_sizes_of_the_eight_test_splits() -> None:
    plain = config("eight").suite.model_dump()
    sizes = [plain["catalogue"][task]["sizes"]["test"] for task in plain["tasks"]]
    assert sizes == [19850, 8041, 6300, 2700, 26032, 12630, 10000, 1880]


def test_where_pictures_come_from_does_not_change_a_run() -> None:
    """Their own identity does."""
    from adamerge.settings import identify

    words = [(), ("download=true",), ("suite.data=a",), ("suite.origin=torchvision", "suite.data=b")]
    ids = {identify(config("eight", *more), "train", {}, {"mnist": {"test": "a"}}).id for more in words}
    assert len(ids) == 1
    assert identify(config("eight"), "train", {}, {"mnist": {"test": "b"}}).id not in ids


def picture(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 36), (value, 0, 0)).save(path)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """The reference's folders of four tasks, two classes of each with pictures."""
    for split in ("train", "val"):
        for i, name in enumerate(prompts("sun397").classes):
            picture(tmp_path / "sun397" / split / f"{name[0]}_{name.replace(' ', '_')}" / "1.jpg", i % 256)
    for split in ("train", "val"):
        for i, name in enumerate(prompts("dtd").classes):
            picture(tmp_path / "dtd" / split / name / "1.jpg", 2 * i)
    for split in ("train", "test"):
        for i, name in enumerate(prompts("eurosat").names):
            picture(tmp_path / "EuroSAT_splits" / split / name / "1.jpg", 20 * i)
    resisc = tmp_path / "resisc45"
    names = [name.replace(" ", "_") for name in prompts("resisc45").classes]
    for i, name in enumerate(names):
        picture(resisc / "NWPU-RESISC45" / name / f"{name}_001.jpg", 5 * i)
        picture(resisc / "NWPU-RESISC45" / name / f"{name}_002.jpg", 5 * i)
    (resisc / "resisc45-train.txt").write_text("".join(f"{name}_001.jpg\n" for name in names))
    (resisc / "resisc45-test.txt").write_text("".join(f"{name}_002.jpg\n" for name in reversed(names)))
    return tmp_path


def test_the_reference_layouts_are_read_with_words_and_labels_in_order(
    folders: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = "suite.tasks=[sun397,dtd,eurosat,resisc45]"
    cfg = config("eight", "suite.origin=folders", f"suite.data={folders}", tasks, "suite.decode_cache=false")
    with caplog.at_level(logging.WARNING):
        data = open_data(cfg, open_tasks(cfg))
    for task in data.tasks:
        assert task.classes == prompts(task.name).classes
        labels = data.labels[task.name]
        assert labels is not None
        order = list(range(len(labels)))
        assert labels.tolist() == (order[::-1] if task.name == "resisc45" else order)
        assert f"Task '{task.name}', split test: {len(labels)} pictures, while the published" in caplog.text


def test_decoded_pictures_are_kept_for_the_next_run(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAMERGE_CACHE", str(folders / "cache"))
    words = ("suite.origin=folders", f"suite.data={folders}", "suite.tasks=[dtd]")
    cfg = config("eight", *words)
    first = open_data(cfg, open_tasks(cfg)).images["dtd"]
    digest, pixels = first.digest(), first[:]
    del first

    def decode(*_: Any) -> Any:
        raise AssertionError("a picture was decoded again")

    monkeypatch.setattr("adamerge.tasks.sources.folder.read_picture", decode)
    again = open_data(cfg, open_tasks(cfg)).images["dtd"]
    assert (again[:] == pixels).all()
    assert again.digest() == digest
    corrupted = config("eight", *words, "suite.corruption=contrast")
    with pytest.raises(AssertionError, match="decoded again"):
        open_data(corrupted, open_tasks(corrupted)).images["dtd"].digest()
    picture(folders / "dtd" / "val" / "banded" / "1.jpg", 255)  # a file that changed
    with pytest.raises(AssertionError, match="decoded again"):
        open_data(cfg, open_tasks(cfg)).images["dtd"].digest()


class Named:
    """A source whose labels are numbered by `class_names`."""

    def __init__(self, class_names: tuple[str, ...]) -> None:
        self.class_names = class_names


def words_of(known: tuple[str, ...]) -> Any:
    entry = {"source": "x", "classes": ["annual crop land", "sea"], "names": ["AnnualCrop", "SeaLake"]}
    (task,) = build_tasks(["eurosat"], {"eurosat": entry}, lambda _: Named(known))
    return task.classes


def test_another_order_of_labels_is_recognised_by_the_data_s_names() -> None:
    assert words_of(("AnnualCrop", "SeaLake")) == ("annual crop land", "sea")
    assert words_of(("sea_lake", "annual_crop")) == ("sea", "annual crop land")
    assert words_of(("something", "else")) == ("annual crop land", "sea")


def test_as_many_names_as_classes() -> None:
    entry = {"source": "x", "classes": ["a", "b"], "names": ["a"]}
    with pytest.raises(ConfigError, match="2 classes, but 1 names"):
        build_tasks(["t"], {"t": entry}, lambda _: Named(("a", "b")))


def test_a_list_that_names_pictures_that_are_not_there(folders: Path) -> None:
    (folders / "resisc45/resisc45-test.txt").write_text("airport_9.jpg\n")
    source = Listed("resisc45/NWPU-RESISC45", {"test": "resisc45/resisc45-test.txt"}, str(folders))
    with pytest.raises(DataError, match=r"1 pictures, 1 of which are not there.*airport_9"):
        source.images("test")
    with pytest.raises(DataError, match="no split 'train'"):
        source.labels("train")
    assert isinstance(np.asarray(len(source.class_names)), np.ndarray)
