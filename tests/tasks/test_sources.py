from __future__ import annotations

import io
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from adamerge.errors import ConfigError, DataError
from adamerge.tasks.images import ImageSet, Pictures
from adamerge.tasks.sources import Folder, Hub, Listed, Parquet, Torchvision
from adamerge.tasks.task import Source

NAMES = ("cat", "dog", "hot_dog")


def each(pictures: Pictures) -> list[Any]:
    return [pictures[index] for index in range(len(pictures))]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests leave nothing in the user's cache."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("ADAMERGE_CACHE", str(tmp_path / "own_cache"))


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (6 + number % 3, 8, 3), np.uint8)


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(number)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, columns: dict[str, Any], features: Any = None) -> str:
    """A Parquet file; the class names are in its metadata only where `features` gives them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(columns)
    if features is not None:
        table = table.cast(features.arrow_schema)
    pq.write_table(table, path)
    return str(path)


def as_hub(path: Path, labels: list[int], names: tuple[str, ...] = NAMES) -> str:
    """In the layout of the Hugging Face Hub."""
    from datasets import ClassLabel, Features
    from datasets import Image as ImageFeature

    pictures = [{"bytes": png(i), "path": f"{i}.png"} for i in range(len(labels))]
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=list(names))})
    return write(path, {"image": pictures, "label": labels}, features)


def shows(picture: Image.Image, number: int) -> bool:
    return np.array_equal(np.asarray(picture), pixels(number))


def test_parquet_in_the_layout_of_the_hub(tmp_path: Path) -> None:
    as_hub(tmp_path / "test.parquet", [2, 0, 1, 2])
    source = Parquet(test="test.parquet", root=str(tmp_path))
    pictures, labels = source.images("test"), source.labels("test")
    assert source.class_names == NAMES
    assert labels is not None
    assert labels.dtype == np.int64
    assert labels.tolist() == [2, 0, 1, 2]
    assert len(pictures) == 4
    assert all(shows(pictures[i], i) for i in range(4))


def test_images_do_not_hold_the_labels(tmp_path: Path) -> None:
    source = Parquet(test=as_hub(tmp_path / "test.parquet", [2, 0]))
    assert source.images("test")._table.column_names == ["image"]  # type: ignore[attr-defined]


def test_parquet_of_plain_bytes_and_numbers(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", {"picture": [png(0), png(1)], "class": np.array([1, 0], np.int32)})
    source = Parquet(test=file, image="picture", label="class")
    assert source.class_names is None
    assert source.labels("test").tolist() == [1, 0]  # type: ignore[union-attr]
    assert shows(source.images("test")[1], 1)


def test_parquet_of_structs_and_names(tmp_path: Path) -> None:
    pictures = [{"bytes": png(0), "path": None}, {"bytes": png(1), "path": None}]
    train = write(tmp_path / "train.parquet", {"image": pictures, "label": ["dog", "cat"]})
    test = write(tmp_path / "test.parquet", {"image": pictures, "label": ["dog", "dog"]})
    source = Parquet(train, test)
    # The cat counts although no test picture shows one.
    assert source.class_names == ("cat", "dog")
    assert source.labels("test").tolist() == [1, 1]  # type: ignore[union-attr]
    assert source.labels("train").tolist() == [1, 0]  # type: ignore[union-attr]
    assert shows(source.images("train")[1], 1)


def test_parquet_of_several_files_in_order(tmp_path: Path) -> None:
    for part in (1, 0):
        write(
            tmp_path / f"test-{part}.parquet",
            {"image": [png(2 * part), png(2 * part + 1)], "label": [part, part]},
        )
    source = Parquet(test="test-*.parquet", root=str(tmp_path))
    assert source.labels("test").tolist() == [0, 0, 1, 1]  # type: ignore[union-attr]
    assert all(shows(source.images("test")[i], i) for i in range(4))


@pytest.mark.parametrize("label", [None, "label"])
def test_parquet_without_labels(tmp_path: Path, label: str | None) -> None:
    """No label column, or one that is -1 throughout."""
    file = write(tmp_path / "a.parquet", {"image": [png(0), png(1)], "label": [-1, -1]})
    source = Parquet(test=file, label=label)
    assert source.labels("test") is None
    assert source.class_names is None


def test_a_file_written_anew_is_read_anew(tmp_path: Path) -> None:
    file = as_hub(tmp_path / "test.parquet", [0, 1])
    assert len(Parquet(test=file).images("test")) == 2
    as_hub(tmp_path / "test.parquet", [0, 1, 2])
    assert len(Parquet(test=file).images("test")) == 3


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (
            {"imgae": [png(0)], "label": [0]},
            {},
            r"no column 'image'; did you mean 'imgae'.*\n.*imgae, label.*image=\.\.\.",
        ),
        (
            {"image": [png(0)], "target": [0]},
            {},
            r"no column 'label'; there are: image, target(.|\n)*label=null",
        ),
        (
            {"image": [1.5], "label": [0]},
            {},
            r"'image' of .*a\.parquet holds no pictures but Value\('float64'\)",
        ),
        ({"image": [png(0)], "label": [0.5]}, {}, "'label' of .* holds no labels but double"),
        ({"image": [png(0), png(1)], "label": [0, None]}, {}, r"1 rows without a label, e\.g\. row 1"),
        ({"image": [png(0), png(1)], "label": ["cat", None]}, {}, r"1 rows without a label, e\.g\. row 1"),
        ({"image": [], "label": []}, {}, "has no rows"),
        (
            {"image": [png(0), b"no picture"], "label": [0, 1]},
            {},
            r"Row 1 of .*a\.parquet: column 'image' cannot be",
        ),
        (
            {"image": [png(0), png(1)[:60]], "label": [0, 1]},
            {},
            r"Row 1 of .*a\.parquet: column 'image' cannot be",
        ),
        (
            {"image": [png(0), None], "label": [0, 1]},
            {},
            r"Row 1 of .*a\.parquet: column 'image' has no picture",
        ),
    ],
)
def test_mistakes_in_a_table(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    import pyarrow as pa

    if not columns["label" if "label" in columns else "image"]:
        columns = {"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}
    source = Parquet(test=write(tmp_path / "a.parquet", columns), **options)
    with pytest.raises(DataError, match=message):
        pictures, _ = source.images("test"), source.labels("test")
        ImageSet(pictures, 8)[:]


def test_splits_that_number_the_classes_differently_are_refused(tmp_path: Path) -> None:
    train = as_hub(tmp_path / "train.parquet", [0], ("dog", "cat", "hot_dog"))
    source = Parquet(train, as_hub(tmp_path / "test.parquet", [0]))
    with pytest.raises(DataError, match=r"train\.parquet numbers .* 'dog', expected 'cat'"):
        source.labels("train")


def test_a_missing_file_says_what_to_set(tmp_path: Path) -> None:
    source = Parquet(test="eurosat/test.parquet", root=str(tmp_path))
    with pytest.raises(DataError, match=r"eurosat/test\.parquet(.|\n)*suite\.data=<folder>.*ADAMERGE_DATA"):
        source.images("test")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Parquet(test="eurosat/test.parquet", root=None),
        lambda: Folder("pets", root=None),
        lambda: Torchvision("MNIST", root=None),
    ],
)
def test_a_suite_without_its_data_folder_says_what_to_set(make: Callable[[], Any]) -> None:
    with pytest.raises(DataError, match=r"not known\.\n  Set suite\.data=<folder>.*ADAMERGE_DATA"):
        make()


def test_a_split_that_is_not_given(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No train split is given; there are: test"):
        Parquet(test=as_hub(tmp_path / "test.parquet", [0])).images("train")


def test_a_torn_parquet_file(tmp_path: Path) -> None:
    file = Path(as_hub(tmp_path / "test.parquet", [0, 1]))
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"test\.parquet \(split test\) cannot be read as Parquet"):
        Parquet(test=str(file)).images("test")


def test_hub_opens_a_folder_of_parquet_files(tmp_path: Path) -> None:
    data = tmp_path / "pets" / "data"
    data.mkdir(parents=True)
    as_hub(data / "train-00000-of-00001.parquet", [0, 1, 2])
    as_hub(data / "validation-00000-of-00001.parquet", [1, 1])
    source = Hub(str(tmp_path / "pets"), splits={"train": "train", "test": "validation"})
    assert source.class_names == NAMES
    assert source.labels("test").tolist() == [1, 1]  # type: ignore[union-attr]
    assert source.labels("train").tolist() == [0, 1, 2]  # type: ignore[union-attr]
    assert shows(source.images("train")[2], 2)


def test_hub_reports_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    as_hub(tmp_path / "pets" / "train.parquet", [0])
    with pytest.raises(
        DataError, match=r"pets, split test could not be opened: .*test(.|\n)*config and splits"
    ):
        Hub(str(tmp_path / "pets")).images("test")
    with pytest.raises(DataError, match="nothing, split test could not be opened"):
        Hub(str(tmp_path / "nothing")).images("test")


def folder(root: Path, *files: str) -> Folder:
    for number, name in enumerate(files):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(number)).save((root / name).with_suffix(".png"))
    return Folder(str(root))


def test_folder_of_splits_and_classes(tmp_path: Path) -> None:
    source = folder(
        tmp_path, "train/hot_dog/1", "train/cat/b", "train/cat/deep/a", "test/hot_dog/2", "test/ape/3"
    )
    # The labels of both splits follow the names of both.
    assert source.class_names == ("ape", "cat", "hot_dog")
    assert source.labels("train").tolist() == [1, 1, 2]  # type: ignore[union-attr]
    assert [shows(source.images("train")[i], n) for i, n in enumerate([1, 2, 0])] == [True] * 3
    assert source.labels("test").tolist() == [0, 2]  # type: ignore[union-attr]
    assert shows(source.images("test")[0], 4)


def test_folder_of_classes_is_a_test_split(tmp_path: Path) -> None:
    source = folder(tmp_path, "cat/1", "cat/2", "dog/1")
    assert source.labels("test").tolist() == [0, 0, 1]  # type: ignore[union-attr]
    with pytest.raises(DataError, match=r"no train pictures; there are: test(.|\n)*train/<class>/"):
        source.images("train")


@pytest.mark.parametrize("where", ["", "test/"])
def test_folder_without_classes_is_unlabeled(tmp_path: Path, where: str) -> None:
    source = folder(tmp_path, f"{where}b", f"{where}a")
    (tmp_path / where / ".DS_Store").write_bytes(b"")
    (tmp_path / where / "notes.txt").write_text("no picture")
    assert source.class_names is None
    assert source.labels("test") is None
    assert [shows(picture, n) for picture, n in zip(each(source.images("test")), [1, 0], strict=True)] == [
        True
    ] * 2


def test_mistakes_in_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*/nowhere(.|\n)*suite\.data"):
        Folder("nowhere", root=str(tmp_path))
    mixed = folder(tmp_path / "mixed", "cat/1", "loose")
    with pytest.raises(DataError, match=r"1 pictures beside its class folders, e\.g\. loose\.png"):
        mixed.images("test")
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match=r"empty has no pictures; expected files ending in \.bmp"):
        Folder("empty", root=str(tmp_path)).images("test")
    torn = folder(tmp_path / "torn", "cat/1", "cat/2")
    file = tmp_path / "torn" / "cat" / "2.png"
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(DataError, match=r"cat/2\.png cannot be read as a picture"):
        ImageSet(torn.images("test"), 8)[:]


def write_idx(path: Path, array: np.ndarray) -> None:
    """The format of Yann LeCun's files: 0, 0, type 8 (uint8), number of sizes; the sizes, big-endian; the data."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.tobytes())


@pytest.fixture
def mnist(tmp_path: Path) -> tuple[Path, dict[str, tuple[np.ndarray, np.ndarray]]]:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    content = {}
    for split, prefix, n in (("train", "train", 7), ("test", "t10k", 5)):
        digits, labels = rng.integers(0, 256, (n, 28, 28), np.uint8), rng.integers(0, 10, n).astype(np.uint8)
        write_idx(raw / f"{prefix}-images-idx3-ubyte", digits)
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", labels)
        content[split] = digits, labels
    return tmp_path, content


@pytest.mark.parametrize("split", ["train", "test"])
def test_torchvision_reads_mnist(mnist: tuple[Path, dict[str, Any]], split: str) -> None:
    root, content = mnist
    source = Torchvision("MNIST", str(root))
    digits, labels = content[split]
    assert source.labels(split).dtype == np.int64
    assert source.labels(split).tolist() == labels.tolist()
    pictures = source.images(split)
    assert len(pictures) == len(digits)
    assert all(np.array_equal(np.asarray(pictures[i]), digits[i]) for i in range(len(digits)))
    assert torch.equal(ImageSet(pictures, 28)[:], torch.from_numpy(digits)[:, None].expand(-1, 3, -1, -1))
    assert source.class_names is not None
    assert source.class_names[3] == "3 - three"


def test_torchvision_passes_options_to_the_class(tmp_path: Path) -> None:
    """EMNIST's `split` is a part of the alphabet, its training pictures another option."""
    raw = tmp_path / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    for part, n in (("train", 3), ("test", 2)):
        write_idx(raw / f"emnist-letters-{part}-images-idx3-ubyte", np.full((n, 28, 28), n, np.uint8))
        write_idx(raw / f"emnist-letters-{part}-labels-idx1-ubyte", np.arange(1, n + 1, dtype=np.uint8))
    source = Torchvision("EMNIST", str(tmp_path), options={"split": "letters"})
    assert source.labels("train").tolist() == [1, 2, 3]
    assert source.labels("test").tolist() == [1, 2]
    assert np.asarray(source.images("train")[0])[0, 0] == 3


def test_torchvision_holds_out_a_tenth_where_there_is_no_split(tmp_path: Path) -> None:
    for name, n in (("Forest", 20), ("River", 10)):
        (tmp_path / "eurosat" / "2750" / name).mkdir(parents=True)
        for i in range(n):
            Image.new("RGB", (4, 4), (i, n, 0)).save(tmp_path / "eurosat" / "2750" / name / f"{i:02}.png")
    source = Torchvision("EuroSAT", str(tmp_path))
    assert source.class_names == ("Forest", "River")
    assert source.labels("test").tolist() == [0, 0, 1]
    assert source.labels("train").tolist() == [0] * 18 + [1] * 9
    shown = {
        split: {np.asarray(p)[0, 0].tobytes() for p in each(source.images(split))}
        for split in ("train", "test")
    }
    assert len(shown["test"]) == 3
    assert len(shown["train"] | shown["test"]) == 30
    assert [np.asarray(p)[0, 0, 1] for p in each(source.images("test"))] == [20, 20, 10]


def test_torchvision_reads_the_labels_of_a_matlab_file(tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    digits = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4), np.uint8)
    # In the file, the digit 0 has the label 10.
    scipy_io.savemat(tmp_path / "test_32x32.mat", {"X": digits, "y": np.array([[1], [10], [9], [10]])})
    source = Torchvision("SVHN", str(tmp_path))
    source._class = _unchecked_svhn
    assert source.labels("test").tolist() == [1, 0, 9, 0]
    assert np.array_equal(np.asarray(source.images("test")[2]), digits[..., 2])
    assert source.class_names is None


def _unchecked_svhn(root: str, split: str = "train") -> Any:
    """torchvision compares the file's MD5 with that of the original."""
    from torchvision.datasets import SVHN

    class Unchecked(SVHN):
        def _check_integrity(self) -> bool:
            return True

    return Unchecked(root, split)


def test_torchvision_says_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"MNIST could not .*\n  It expects .*/MNIST/raw/.*download=true"):
        Torchvision("MNIST", str(tmp_path)).images("test")
    with pytest.raises(ConfigError, match="no class 'MNST'; did you mean 'MNIST'"):
        Torchvision("MNST", str(tmp_path))
    with pytest.raises(ConfigError, match="MNIST does not take these options: .*colour"):
        Torchvision("MNIST", str(tmp_path), options={"colour": True}).images("test")
    with pytest.raises(DataError, match="MNIST has no split 'val'; there are: train, test"):
        Torchvision("MNIST", str(tmp_path)).images("val")


def test_torchvision_downloads_only_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import MNIST

    asked = []
    monkeypatch.setattr(MNIST, "download", lambda self: asked.append(self.root))
    for download in (False, True):
        with pytest.raises(DataError):
            Torchvision("MNIST", str(tmp_path), download=download).images("test")
    assert asked == [str(tmp_path)]


def test_what_systems_leave_in_folders_is_no_class_and_no_picture(tmp_path: Path) -> None:
    source = folder(
        tmp_path, "cat/1", "dog/1", "__MACOSX/cat/x", "@eaDir/x", ".hidden/x", "cat/.ipynb_checkpoints/1-copy",
        "cat/__MACOSX/1", "dog/@eaDir/1", "dog/._1", ".trash/2",
    )  # fmt: skip
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"")
    (tmp_path / "cat" / "desktop.ini").write_bytes(b"")
    assert source.class_names == ("cat", "dog")
    assert source.labels("test").tolist() == [0, 1]  # type: ignore[union-attr]
    assert [shows(source.images("test")[i], i) for i in (0, 1)] == [True, True]
    assert source.notes("test") == []


def test_linked_folders_count_once_and_never_lead_back(tmp_path: Path) -> None:
    """torchvision follows links too, but a link to a folder above it never ends there."""
    folder(tmp_path / "real", "a", "b")
    source = folder(tmp_path / "pets", "cat/own", "dog/1")
    cat = tmp_path / "pets" / "cat"
    (cat / "batch1").symlink_to(tmp_path / "real")
    (cat / "batch2").symlink_to(tmp_path / "real")  # the same folder again
    (cat / "all").symlink_to(tmp_path / "pets")
    (cat / "self").symlink_to(cat)
    (cat / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "pets" / "bird").symlink_to(tmp_path / "real")  # a class that is a link
    assert source.class_names == ("bird", "cat", "dog")
    assert source.labels("test").tolist() == [0, 0, 1, 1, 1, 2]  # type: ignore[union-attr]
    notes = " ".join(source.notes("test"))
    assert "2 pictures in folders inside the class folders count for the class, e.g." in notes
    assert "1 links lead nowhere" in notes
    assert "3 links lead back or to a folder that is counted already" in notes


def test_notes_on_a_folder(tmp_path: Path) -> None:
    source = folder(tmp_path, "test/cat/1", "test/cat/deep/2", "train/dog/3", "val/cat/4")
    (tmp_path / "test" / "ape").mkdir()
    (tmp_path / "test" / "cat" / "phone.HEIC").write_bytes(b"")
    (tmp_path / "test" / "cat" / "notes.txt").write_bytes(b"")
    notes = source.notes("test")
    for text in (
        "1 class folders have no pictures, but are classes: ape",
        "1 classes of the other split have no folder here: dog",
        "cat/deep/2.png",
        "1 files have a suffix that is not read: 1 .heic",
        "left out beside them: val",
    ):
        assert any(text in note for note in notes), text
    assert len(notes) == 5


def test_a_class_with_the_name_of_a_split_is_explained(tmp_path: Path) -> None:
    source = folder(tmp_path, "train/1", "bus/2", "car/3")
    with pytest.raises(DataError, match=r"no test pictures(.|\n)*left out beside them: bus, car"):
        source.images("test")


def test_numbered_folders_and_labels_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    source = folder(tmp_path / "folder", *(f"{number}/x" for number in range(12)))
    names = tuple(str(number) for number in range(12))
    assert source.class_names == names
    labels, pictures = source.labels("test"), source.images("test")
    assert labels is not None
    assert sorted(labels.tolist()) == list(range(12))
    assert all(shows(picture, label) for picture, label in zip(each(pictures), labels, strict=True))
    file = write(tmp_path / "a.parquet", {"image": [png(i) for i in range(12)], "label": [*names]})
    table = Parquet(test=file)
    assert table.class_names == names
    assert table.labels("test").tolist() == list(range(12))  # type: ignore[union-attr]


def test_brackets_and_stars_in_a_path_stand_for_themselves(tmp_path: Path) -> None:
    root = tmp_path / "pets [v1]{a}*b?"
    root.mkdir()
    as_hub(root / "test-0.parquet", [0, 1])
    as_hub(root / "test-1.parquet", [2])
    as_hub(root / "te[st].parquet", [1])
    assert Parquet(test="test-*.parquet", root=str(root)).labels("test").tolist() == [0, 1, 2]  # type: ignore[union-attr]
    assert Parquet(test="te[st].parquet", root=str(root)).labels("test").tolist() == [1]  # type: ignore[union-attr]
    assert folder(root / "folders", "cat [x]/1").class_names == ("cat [x]",)


def _identities(tmp_path: Path, name: str, numbers: list[int], labels: list[int]) -> dict[str, str]:
    """Of the same three pictures as files, in a list, in a table of bytes and in one of structs."""
    place = tmp_path / name
    files = []
    for index, (number, label) in enumerate(zip(numbers, labels, strict=True)):
        file = place / NAMES[label] / f"{NAMES[label]}_{index}.png"
        for other in NAMES:
            (place / other).mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(number))
        files.append(file.name)
    (tmp_path / f"{name}.txt").write_text("\n".join(files))
    names = [NAMES[label] for label in labels]
    plain = {"image": [png(n) for n in numbers], "label": names}
    structs = {"image": [{"bytes": png(n), "path": f"{name}.png"} for n in numbers], "label": names}
    write(tmp_path / f"{name}-plain.parquet", plain)
    write(tmp_path / f"{name}-structs.parquet", structs)
    sources = {
        "folder": Folder(name, root=str(tmp_path)),
        "listed": Listed(name, {"test": f"{name}.txt"}, root=str(tmp_path)),
        "plain": Parquet(test=f"{name}-plain.parquet", root=str(tmp_path)),
        "structs": Parquet(test=f"{name}-structs.parquet", root=str(tmp_path)),
    }
    return {kind: source.identity("test") for kind, source in sources.items()}


def test_the_same_pictures_are_the_same_wherever_and_however_they_are_kept(tmp_path: Path) -> None:
    first = _identities(tmp_path, "here", [1, 2, 3], [0, 1, 2])
    assert len(set(first.values())) == 1
    assert _identities(tmp_path, "there", [1, 2, 3], [0, 1, 2]) == first


@pytest.mark.parametrize(
    ("numbers", "labels"),
    [([1, 2, 4], [0, 1, 2]), ([1, 3, 2], [0, 1, 2]), ([1, 2, 3], [0, 1, 1]), ([1, 2], [0, 1])],
    ids=["another picture", "another order", "another label", "a picture less"],
)
def test_other_pictures_or_labels_are_others_for_every_source(
    tmp_path: Path, numbers: list[int], labels: list[int]
) -> None:
    first = _identities(tmp_path, "here", [1, 2, 3], [0, 1, 2])
    other = _identities(tmp_path, "there", numbers, labels)
    assert all(first[kind] != other[kind] for kind in first)


def test_a_picture_replaced_under_its_name_is_another_and_a_touched_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adamerge.digests._SETTLED_NS", -1)
    source = folder(tmp_path, "cat/1.png", "dog/2.png")
    first = source.identity("test")
    file = next(tmp_path.rglob("1.png"))
    times, content = file.stat(), file.read_bytes()
    os.utime(file)
    assert source.identity("test") == first
    file.write_bytes(content[:-1] + b"x")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert source.identity("test") != first


def test_torchvision_is_known_by_its_pictures_too(
    mnist: tuple[Path, dict[str, tuple[np.ndarray, np.ndarray]]], tmp_path: Path
) -> None:
    root, splits = mnist
    first = Torchvision("MNIST", str(root)).identity("test")
    shutil.copytree(root, tmp_path / "elsewhere")
    assert Torchvision("MNIST", str(tmp_path / "elsewhere")).identity("test") == first
    file = next((tmp_path / "elsewhere").rglob("t10k-images-idx3-ubyte"))
    pictures = splits["test"][0].copy()
    pictures[0, 0, 0] ^= 1
    write_idx(file, pictures)
    assert Torchvision("MNIST", str(tmp_path / "elsewhere")).identity("test") != first
    assert Torchvision("MNIST", str(root)).identity("train") != first


def test_a_source_of_one_s_own_is_known_by_its_pixels() -> None:
    class Own(Source):
        class_names = ("a", "b")

        def __init__(self, pictures: Any) -> None:
            self.pictures = pictures

        def images(self, split: str) -> Any:
            return self.pictures

        def labels(self, split: str) -> np.ndarray:
            return np.array([0, 1])

    arrays = np.stack([pixels(0), pixels(3)])
    changed = arrays.copy()
    changed[1, 0, 0, 0] ^= 1
    drawn = [Image.fromarray(array) for array in arrays]
    turned = [picture.copy() for picture in drawn]
    turned[0].getexif()[0x0112] = 6
    found = [Own(pictures).identity("test") for pictures in (arrays, changed, drawn, turned)]
    assert len(set(found)) == 4
    assert Own(arrays.copy()).identity("test") == found[0]
