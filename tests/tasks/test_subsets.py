from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from adamerge.errors import DataError
from adamerge.tasks.sources import Folder
from adamerge.tasks.subsets import Sample, Validation, validation_rows
from adamerge.tasks.task import Source


class Numbers(Source):
    """Pictures that are their own number."""

    class_names = ("even", "odd")

    def __init__(self, train: int = 30, test: int = 9) -> None:
        self.count = {"train": train, "test": test}

    def images(self, split: str) -> list[int]:  # type: ignore[override]
        return list(range(self.count[split]))

    def labels(self, split: str) -> NDArray[np.int64]:
        return np.arange(self.count[split]) % 2

    def digests(self, split: str, rows: Any = None) -> list[str]:
        return [f"{split} {n}" for n in (range(self.count[split]) if rows is None else rows.tolist())]


def test_mnist_s_split_is_that_of_the_papers() -> None:
    # The index that the task-vectors code itself checks.
    train, held_out = validation_rows(60_000)
    assert train[0] == 36_044
    assert (len(train), len(held_out)) == (55_000, 5_000)


@given(st.integers(10, 5_000))
def test_the_parts_make_the_whole(count: int) -> None:
    train, held_out = validation_rows(count)
    assert len(held_out) == count // 10
    assert sorted([*train, *held_out]) == list(range(count))


def test_a_validation_source_shows_training_pictures_only() -> None:
    source = Validation(Numbers())
    pictures, labels = source.images("test"), source.labels("test")
    assert labels is not None
    assert len(pictures) == len(labels) == 3
    assert [pictures[i] % 2 for i in range(3)] == labels.tolist()
    assert len({source.identity("train"), source.identity("test"), Numbers().identity("train")}) == 3
    assert source.identity("test", np.array([1])) == Numbers().identity("train", validation_rows(30)[1][[1]])
    with pytest.raises(DataError, match="not 'val'"):
        source.images("val")


def test_a_folder_of_validation_pictures_is_the_validation_split(tmp_path: Path) -> None:
    """EuroSATVal of the task-vectors code is the folder `val`; its training pictures are all of `train`."""
    for split, count in (("train", 4), ("test", 3), ("val", 2)):
        for name in ("forest", "river"):
            (tmp_path / "eurosat" / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (4, 4), (i, 0, 0)).save(
                    tmp_path / "eurosat" / split / name / f"{split}{i}.png"
                )
    splits = {"train": "train", "test": "test", "validation": "val"}
    source = Validation(Folder("eurosat", str(tmp_path), splits))
    assert [len(source.images(split)) for split in ("train", "test")] == [8, 4]
    assert source.labels("test").tolist() == [0, 0, 1, 1]
    assert len({source.identity("train"), source.identity("test")}) == 2
    without = Validation(Folder("eurosat", str(tmp_path)))
    assert len(without.images("train")) + len(without.images("test")) == 8, (
        "held out of the training pictures"
    )
    shutil.rmtree(tmp_path / "eurosat" / "val")
    with pytest.raises(DataError, match=r"no validation pictures(.|\n)*eurosat/val/<class>(.|\n)*a tenth"):
        Validation(Folder("eurosat", str(tmp_path), splits)).images("test")


def test_a_sample_is_spread_over_the_test_split() -> None:
    source = Sample(Numbers(), 3)
    pictures, labels = source.images("test"), source.labels("test")
    assert [pictures[i] for i in range(3)] == [0, 4, 8]
    assert labels.tolist() == [0, 0, 0]
    assert source.identity("test") == Numbers().identity("test", np.array([0, 4, 8]))
    assert source.identity("test") != Numbers().identity("test") == Sample(Numbers(), 9).identity("test")
    assert len(source.images("train")) == 30
    assert len(Sample(Numbers(), 100).images("test")) == 9


def test_test_pictures_among_the_training_pictures_are_refused() -> None:
    from adamerge.tasks.images import ImageSet
    from adamerge.tasks.overlap import refuse_overlap

    pixels = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3), np.uint8)
    train = ImageSet(pixels[:6], 4)
    refuse_overlap("dtd", train, ImageSet(pixels[6:], 4))
    with pytest.raises(
        DataError, match=r"2 of 5 test pictures .* test picture 0 is training picture 4(.|\n)*allow_overlap"
    ):
        refuse_overlap("dtd", train, ImageSet(pixels[4:], 4))
