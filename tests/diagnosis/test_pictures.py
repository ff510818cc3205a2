"""What `doctor` sees of pictures without decoding them all."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adamerge.diagnosis import pictures as module
from adamerge.diagnosis.pictures import look
from adamerge.tasks.mini import Mini
from adamerge.tasks.sources import Folder, Parquet

COUNT = 12


def saved(number: int, kind: str, **options: object) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def write(root: Path, files: dict[str, bytes]) -> Folder:
    for name, content in files.items():
        (root / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "pets" / name).write_bytes(content)
    return Folder("pets", str(root))


@pytest.fixture(autouse=True)
def _sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first and the last picture are decoded: the headers must tell the rest."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(module, "_DECODED", 2)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_damaged_picture_is_found_wherever_it_is(tmp_path: Path, kind: str) -> None:
    files = {f"cat/{i:02}.{kind.lower()}": saved(i, kind) for i in range(COUNT)}
    truncated, flipped, empty = (f"cat/{i:02}.{kind.lower()}" for i in (3, 5, 7))
    files[truncated] = files[truncated][: len(files[truncated]) // 2]
    files[empty] = b""
    if kind == "PNG":  # a JPEG with another byte is another picture
        middle = len(files[flipped]) // 2
        files[flipped] = (
            files[flipped][:middle] + bytes([files[flipped][middle] ^ 1]) + files[flipped][middle + 1 :]
        )
    source = write(tmp_path, files)
    seen = look(source.images("test"), source.labels("test"), 8)
    bad = [truncated, flipped, empty] if kind == "PNG" else [truncated, empty]
    assert len(seen.unreadable) == len(bad)
    for name, said in zip(bad, seen.unreadable, strict=True):
        assert f"{name} cannot be read as a picture" in said
    assert seen.opened == COUNT
    assert seen.decoded < 4


def test_what_is_unusual_is_counted(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    grey = io.BytesIO()
    Image.fromarray(np.full((4, 4), 4095, np.uint16)).save(grey, "PNG")
    floats = io.BytesIO()
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(floats, "TIFF")
    inks = io.BytesIO()
    Image.new("CMYK", (4, 4)).save(inks, "JPEG")
    film = io.BytesIO()
    frames = [Image.new("L", (4, 4), shade) for shade in (0, 200)]
    frames[0].save(film, "GIF", save_all=True, append_images=frames[1:])
    source = write(
        tmp_path,
        {
            "cat/a.png": saved(0, "PNG"), "cat/b.jpg": saved(1, "JPEG", exif=turned), "cat/c.png": grey.getvalue(),
            "cat/d.tif": floats.getvalue(), "cat/e.jpg": inks.getvalue(), "cat/f.gif": film.getvalue(),
            "cat/g.jpg": saved(2, "JPEG") + b"what some cameras append", "cat/h.png": saved(3, "PNG"),
        },
    )  # fmt: skip
    seen = look(source.images("test"), source.labels("test"), 8)
    assert (seen.opened, seen.turned, seen.sixteen, seen.animated) == (8, 1, 1, 1)
    assert seen.modes == {"I;16": 1, "CMYK": 1}
    assert len(seen.unreadable) == 1
    assert "d.tif holds 32-bit floats from 0.5 to 0.5" in seen.unreadable[0]


def test_pictures_in_two_classes_are_found_in_folders_and_tables(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pngs = [saved(i, "PNG") for i in range(6)]
    source = write(
        tmp_path,
        {"cat/0.png": pngs[0], "cat/copy of 0.png": pngs[0], "cat/1.png": pngs[1], "dog/x.png": pngs[1]},
    )
    seen = look(source.images("test"), source.labels("test"), 8)
    (twins,) = seen.twins  # the copy within a class is none
    assert [name.rpartition("pets/")[2] for name in twins] == ["cat/1.png", "dog/x.png"]
    assert look(source.images("test"), None, 8).twins == []
    rows = [pngs[0], pngs[1], pngs[2], pngs[1], None, pngs[3]]
    pq.write_table(pa.table({"image": rows, "label": [0, 0, 0, 1, 1, 1]}), tmp_path / "test.parquet")
    table = Parquet(test="test.parquet", root=str(tmp_path))
    seen = look(table.images("test"), table.labels("test"), 8)
    (twins,) = seen.twins
    assert [name.split()[1] for name in twins] == ["1", "3"]
    assert len(seen.unreadable) == 1
    assert "Row 4 of" in seen.unreadable[0]
    assert "has no picture" in seen.unreadable[0]


def test_a_source_without_files_is_sampled() -> None:
    done: list[int] = []
    seen = look(Mini("signs").images("test"), None, 32, done.append)
    assert (seen.opened, seen.decoded, seen.unreadable) == (0, 2, [])
    assert sum(done) == 2
