from __future__ import annotations

import errno
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from adamerge.errors import RunError
from adamerge.tasks import pixels as module
from adamerge.tasks.images import ImageSet, random_crop


def picture(mode: str, width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


class Counting:
    """Counts how often each picture is decoded."""

    def __init__(self, n: int) -> None:
        self.pictures = [picture("RGB", 20 + i, 30) for i in range(n)]
        self.decoded: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int, /) -> Image.Image:
        self.decoded[index] += 1
        return self.pictures[index]


@pytest.mark.parametrize("size", [32, 48])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1", "CMYK"])
def test_pixels_equal_those_of_open_clip(mode: str, size: int) -> None:
    from open_clip.transform import image_transform

    pictures = [
        picture(mode, *shape) for shape in [(64, 64), (97, 51), (31, 200), (20, 28), (48, 32), (33, 32)]
    ]
    ours = ImageSet(pictures, size)[:]
    theirs = image_transform(size, is_train=False, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    # ToTensor divides by 255, exactly undone by the rounding.
    expected = torch.stack([(theirs(p) * 255).round().to(torch.uint8) for p in pictures])
    assert ours.dtype == torch.uint8
    assert torch.equal(ours, expected)


def test_each_picture_is_decoded_once_and_only_when_asked_for() -> None:
    source = Counting(9)
    images = ImageSet(source, 16)
    assert not source.decoded
    first = images[torch.tensor([4, 2, 4])]
    assert source.decoded == {2: 1, 4: 1}
    assert torch.equal(first[0], first[2])
    batches = list(images.batches(4))
    assert [len(batch) for batch in batches] == [4, 4, 1]
    assert source.decoded == dict.fromkeys(range(9), 1)
    assert torch.equal(torch.cat(batches)[[4, 2]], first[:2])


def test_a_ready_array_is_not_copied() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    images = ImageSet(pixels, 8)
    assert np.shares_memory(images._pixels, pixels)
    assert torch.equal(images[torch.tensor([3])], torch.from_numpy(pixels[3:4]).permute(0, 3, 1, 2))
    batch = images[:]
    batch.zero_()
    assert pixels.any()


def test_an_array_of_another_size_is_resized() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 10, 12, 3), np.uint8)
    expected = ImageSet([Image.fromarray(p) for p in pixels], 8)
    assert torch.equal(ImageSet(pixels, 8)[:], expected[:])


def test_a_large_set_lies_in_a_file_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory = ImageSet(Counting(5), 16)
    monkeypatch.setattr(module, "_IN_MEMORY_BYTES", 1000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    on_disk = ImageSet(Counting(5), 16)
    assert isinstance(on_disk._pixels, np.memmap)
    assert not list(tmp_path.iterdir())
    assert torch.equal(on_disk[:], in_memory[:])


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot reserve room")
def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_IN_MEMORY_BYTES", 1000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(RunError, match=rf"{tmp_path} \(No space left on device\)(.|\n)*TMPDIR"):
        ImageSet(Counting(5), 16)


def test_digest_is_that_of_the_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    same = ImageSet([Image.fromarray(p) for p in pixels], 8)
    assert ImageSet(pixels, 8).digest() == same.digest()
    changed = pixels.copy()
    changed[4, 7, 7, 2] ^= 1
    assert ImageSet(changed, 8).digest() != same.digest()
    assert ImageSet(pixels[:4], 8).digest() != same.digest()


def test_random_crop_stays_within_its_bounds() -> None:
    # Red grows along x, green along y, so that the corners of the crop tell where it lay.
    x, y = np.meshgrid(np.arange(200), np.arange(100))
    gradient = np.stack([x, y, 0 * x], axis=-1).astype(np.uint8)
    rng = np.random.default_rng(3)
    areas = []
    for _ in range(200):
        crop = random_crop(gradient, 50, (0.25, 1.0), rng).astype(float)
        width, height = crop[..., 0].max() - crop[..., 0].min(), crop[..., 1].max() - crop[..., 1].min()
        assert (np.diff(crop[25, :, 0]) >= 0).all(), "flipped"
        areas.append(width * height / (200 * 100))
    assert 0.2 < min(areas) < 0.35
    assert 0.85 < max(areas) <= 1.0
