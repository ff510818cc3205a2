"""A task's images at the model's resolution, each decoded at most once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adamerge.errors import DataError
from adamerge.files import atomic_write_text
from adamerge.picture_fit import Fit
from adamerge.tasks.corruptions import Corruption
from adamerge.tasks.picture import standard
from adamerge.tasks.pixels import Pixels

if TYPE_CHECKING:
    from PIL.Image import Image

_THREADS = 4


class Pictures(Protocol):
    """Pictures by number, decoded when asked for: PIL images or uint8 arrays (H, W, 3)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class ImageSet:
    """Images as uint8 pixels (n, 3, size, size), decoded on first use.

    The model's evaluation transform up to the normalisation, CLIP's being open_clip's image_transform: resized and
    cropped as `fit` says, RGB, of a picture that is upright and has 8 bits (`standard`). The encoder normalises.

    Args:
        images: the pictures. A uint8 array (n, size, size, 3) without a corruption is used as it is, without a copy.
        fit: how each is brought to the model's resolution; a number is CLIP's way to that many pixels.
        corruption: applied to each picture at that resolution, once, on a copy.
        kept: where the decoded pictures are kept for later runs; named by what they were decoded from.
        task: whose images they are, for messages.

    Raises:
        DataError: when a picture is asked for that cannot be read; it names the picture and the task.
        RunError: no room in the temporary folder for a set that is too large for memory.
    """

    def __init__(
        self,
        images: Pictures,
        fit: Fit | int,
        corruption: Corruption | None = None,
        kept: Path | None = None,
        task: str | None = None,
    ) -> None:
        self.fit = Fit.of(fit)
        self.size = size = self.fit.size
        self._task = task
        self._images = images
        self._corruption = corruption
        self._digest: str | None = None  # found once: decoded pixels stay as they are
        shape = (len(images), size, size, 3)
        fits = isinstance(images, np.ndarray) and images.shape == shape and images.dtype == np.uint8
        ready = fits and corruption is None
        self._store = None if ready else Pixels(shape, kept)
        self._pixels: NDArray[np.uint8] = images if self._store is None else self._store.values  # type: ignore[assignment]

    @classmethod
    def of(cls, pixels: Tensor) -> ImageSet:
        """The set of uint8 pixels (n, 3, size, size)."""
        return cls(pixels.permute(0, 2, 3, 1).contiguous().numpy(), pixels.shape[-1])

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, indices: Tensor | slice) -> Tensor:
        """uint8 (k, 3, size, size) of the images at `indices` (k,)."""
        chosen = np.arange(len(self))[indices if isinstance(indices, slice) else indices.numpy()]
        if self._store is not None and len(missing := np.unique(chosen[~self._store.done[chosen]])):
            with ThreadPoolExecutor(_THREADS) as threads:
                list(threads.map(partial(self._decode, self._store), missing.tolist()))
            self._store.settle()
        return torch.from_numpy(self._pixels[chosen]).permute(0, 3, 1, 2)

    def first(self, count: int) -> ImageSet:
        """The first images as a set of their own."""
        return ImageSet.of(self[slice(count)])

    def batches(self, batch_size: int) -> Iterator[Tensor]:
        """All images in order, in batches."""
        for first in range(0, len(self), batch_size):
            yield self[slice(first, first + batch_size)]

    def digest(self) -> str:
        """sha256 of all pixels: the identity of the data."""
        if self._digest is None:
            self._digest = self._find_digest()
        return self._digest

    def _find_digest(self) -> str:
        known = None if self._store is None else self._store.digest
        if known is not None and known.exists():
            return known.read_text(encoding="utf-8")
        result = hashlib.sha256(str(self._pixels.shape).encode())
        for batch in self.batches(1024):
            result.update(batch.permute(0, 2, 3, 1).contiguous().numpy().data)
        if known is not None:
            atomic_write_text(known, result.hexdigest())
        return result.hexdigest()

    def _decode(self, store: Pixels, index: int) -> None:
        try:
            pixels = resize_and_crop(self._images[index], self.fit)
        except DataError as error:
            raise DataError(f"Task '{self._task}': {error}" if self._task else str(error)) from error
        store[index] = pixels if self._corruption is None else self._corruption(pixels, index)


def resize_and_crop(image: Image | NDArray[np.uint8], fit: Fit | int) -> NDArray[np.uint8]:
    """uint8 (size, size, 3) of a PIL image or an array (H, W, 3)."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as transforms

    fit = Fit.of(fit)
    side = fit.to or fit.size
    to = side if fit.resize == "shortest" else [side, side]
    resized = transforms.resize(standard(image), to, InterpolationMode(fit.interpolation))
    # RGB comes last, as in open_clip: for a palette the order makes a difference.
    return np.asarray(transforms.center_crop(resized, [fit.size, fit.size]).convert("RGB"))


def random_crop(
    image: Image | NDArray[np.uint8], size: int, scale: tuple[float, float], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """uint8 (size, size, 3) of a random box, `scale` of the picture's area and 3/4 to 4/3 in shape."""
    from PIL.Image import Resampling

    picture = standard(image).convert("RGB")
    area = rng.uniform(*scale)
    ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    width = min(1.0, float(np.sqrt(area * ratio))) * picture.width
    height = min(1.0, float(np.sqrt(area / ratio))) * picture.height
    left, top = rng.uniform(0, picture.width - width), rng.uniform(0, picture.height - height)
    box = (left, top, min(left + width, picture.width), min(top + height, picture.height))
    return np.asarray(picture.resize((size, size), Resampling.BICUBIC, box=box))
