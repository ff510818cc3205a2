"""One picture, one result: whatever file, table or array it comes from, whatever its mode, depth and orientation."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from adamerge.errors import DataError
from adamerge.tasks.images import ImageSet, resize_and_crop
from adamerge.tasks.picture import READING, read_picture, standard
from adamerge.tasks.sources import Folder, Hub, Parquet
from adamerge.tasks.sources.vision import _Rows

ORIENTATION = 0x0112


def colours(width: int = 20, height: int = 12) -> Image.Image:
    rng = np.random.default_rng(width * height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def encoded(picture: Image.Image, kind: str, orientation: int = 1, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    file = io.BytesIO()
    picture.save(file, kind, exif=exif, **options)
    return file.getvalue()


def as_bytes(grey16: np.ndarray, kind: str, byteorder: str = "<") -> bytes:
    mode = "I;16" if byteorder == "<" else "I;16B"
    file = io.BytesIO()
    shape = grey16.shape[::-1]
    Image.frombytes(mode, shape, grey16.astype(f"{byteorder}u2").tobytes()).save(file, kind)
    return file.getvalue()


def parquet(tmp_path: Path, content: bytes) -> Parquet:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": [content], "label": [0]}), tmp_path / "test.parquet")
    return Parquet(test="test.parquet", root=str(tmp_path))


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@given(
    mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"]),
    orientation=st.integers(1, 8),
    width=st.integers(1, 40),
    height=st.integers(1, 40),
)
@settings(deadline=None, max_examples=60)
def test_a_picture_of_8_bits_is_open_clip_s_of_the_upright_picture(
    mode: str, orientation: int, width: int, height: int
) -> None:
    from open_clip.transform import image_transform

    stored = colours(width, height).convert(mode)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored.info["exif"] = exif.tobytes()
    theirs = image_transform(16, is_train=False, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    upright = ImageOps.exif_transpose(stored)
    expected = (theirs(upright) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    assert np.array_equal(resize_and_crop(stored, 16), expected)
    assert np.array_equal(resize_and_crop(standard(standard(stored)), 16), expected)


@given(
    values=st.lists(st.integers(0, 65535), min_size=12, max_size=12),
    kind=st.sampled_from(["PNG", "TIFF", "PPM"]),
    byteorder=st.sampled_from(["<", ">"]),
)
@settings(deadline=None)
def test_16_bits_become_8_by_their_range(values: list[int], kind: str, byteorder: str) -> None:
    grey = np.array(values).reshape(3, 4)
    content = as_bytes(grey, kind, "<" if kind == "PPM" else byteorder)
    found = read_picture(io.BytesIO(content), "x")
    assert found.mode == "L"
    assert np.array_equal(np.asarray(found), np.round(grey / 257).astype(np.uint8))


def test_16_bits_scaled_up_from_8_give_the_8_again() -> None:
    grey = np.asarray(colours().convert("L"))
    found = read_picture(io.BytesIO(as_bytes(grey.astype(np.int64) * 257, "PNG")), "x")
    assert np.array_equal(np.asarray(found), grey)
    assert np.array_equal(np.asarray(standard(grey.astype(np.uint16) * 257)), grey)


@pytest.mark.parametrize(("mode", "kind"), [("F", "32-bit floats"), ("I", "32-bit whole numbers")])
def test_values_of_an_unknown_range_are_refused_by_name(tmp_path: Path, mode: str, kind: str) -> None:
    picture = Image.new(mode, (4, 4), 7)
    picture.putpixel((0, 0), 300)
    (tmp_path / "photos").mkdir()
    picture.save(tmp_path / "photos" / "a.tif")
    source = Folder("photos", str(tmp_path))
    said = rf"Task 'pets': .*photos/a\.tif holds {kind} from 7 to 300 \(mode {mode}\)(.|\n)*8 or 16 bits"
    with pytest.raises(DataError, match=said):
        ImageSet(source.images("test"), 8, task="pets")[:]
    content = (tmp_path / "photos" / "a.tif").read_bytes()
    with pytest.raises(DataError, match=rf"Row 0 of .*test\.parquet: column 'image' holds {kind}"):
        parquet(tmp_path, content).images("test")[0]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_one_file_is_one_picture_from_every_source(tmp_path: Path, kind: str, orientation: int) -> None:
    content = encoded(colours(), kind, orientation)
    file = tmp_path / "folder" / f"a.{kind.lower()}"
    (tmp_path / "folder").mkdir()
    file.write_bytes(content)
    stored = Image.open(io.BytesIO(encoded(colours(), kind)))
    turns = {
        1: None,
        3: Image.Transpose.ROTATE_180,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
    }
    turn = turns[orientation]
    expected = resize_and_crop(stored if turn is None else stored.transpose(turn), 8)

    def torchvision() -> Any:
        return _Rows([(Image.open(file).convert("RGB"), 0)], np.array([0]), "FakeData")

    def hub() -> Any:
        import shutil

        parquet(tmp_path, content)
        (tmp_path / "hub").mkdir()
        shutil.copy(tmp_path / "test.parquet", tmp_path / "hub" / "test-00000-of-00001.parquet")
        return Hub(str(tmp_path / "hub")).images("test")

    made = {
        "folder": Folder("folder", str(tmp_path)).images("test"),
        "parquet": parquet(tmp_path, content).images("test"),
        "hub": hub(),
        "torchvision": torchvision(),
    }
    for name, pictures in made.items():
        assert np.array_equal(resize_and_crop(pictures[0], 8), expected), name
    assert np.array_equal(resize_and_crop(read_picture(file), 8), expected)


def test_what_is_no_orientation_turns_nothing() -> None:
    for wrong in (0, 9, 6000):
        content = encoded(colours(), "PNG", wrong)
        assert np.array_equal(np.asarray(read_picture(io.BytesIO(content), "x")), np.asarray(colours()))
    file = io.BytesIO()
    colours().save(file, "PNG", exif=b"Exif\0\0no exif at all")
    assert np.array_equal(np.asarray(read_picture(file, "x")), np.asarray(colours()))


def test_arrays_of_another_kind_are_refused() -> None:
    with pytest.raises(DataError, match=r"A picture is an array float32 \(4, 4, 3\); expected uint8"):
        standard(np.zeros((4, 4, 3), np.float32))
    with pytest.raises(DataError, match="mode F"):
        standard(np.zeros((4, 4), np.float32))


@given(
    st.binary(max_size=200),
    st.sampled_from(["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP"]),
    st.integers(0, 300),
)
@settings(deadline=None)
def test_damaged_bytes_are_a_sentence_or_a_picture(noise: bytes, kind: str, at: int) -> None:
    file = io.BytesIO()
    colours().save(file, kind)
    whole = file.getvalue()
    damaged = whole[:at] + noise + whole[at + len(noise) :]
    said = "this one "
    try:
        read_picture(io.BytesIO(damaged), "this one")
    except DataError as error:
        said = str(error)
    assert said.startswith("this one ")


def test_a_change_of_reading_has_a_number() -> None:
    """Kept pixels are named by it: without a new number old pixels would be taken for new ones."""
    assert READING == 2
