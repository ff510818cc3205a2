"""A look at every picture's header, and a full decoding of a sample: what cannot be read, is unusual or there twice."""

from __future__ import annotations

import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adamerge.errors import DataError
from adamerge.tasks.images import Pictures, resize_and_crop
from adamerge.tasks.picture import is_sixteen_bit, orientation, unreadable

if TYPE_CHECKING:
    from PIL.Image import Image

_DECODED = 50  # pictures that are decoded whole, from the first to the last
_END_OF_JPEG = b"\xff\xd9"
_TAIL = 4096  # where the end of a JPEG is looked for: some cameras write more behind it
_THREADS = 4
_HEADER_TELLS = frozenset(("1", "L", "LA", "P", "PA", "RGB", "RGBA"))  # modes that hold no surprise
Encoded = tuple[str, "bytes | Path | None"]


@dataclass
class Seen:
    """What was found in a split's pictures.

    Attributes:
        opened: pictures whose header was read; 0 where the source has no files.
        decoded: pictures that were decoded whole.
        unreadable: a sentence for each picture that cannot be used.
        modes: how often each unusual mode occurs.
        sixteen: of how many the 16 bits become 8.
        turned: how many an orientation tag turns.
        animated: how many hold more than the picture that is taken.
        twins: names of pictures with the same bytes under different labels, together.
    """

    opened: int = 0
    decoded: int = 0
    unreadable: list[str] = field(default_factory=list)
    modes: Counter[str] = field(default_factory=Counter)
    sixteen: int = 0
    turned: int = 0
    animated: int = 0
    twins: list[list[str]] = field(default_factory=list)


def look(
    pictures: Pictures,
    labels: NDArray[np.int64] | None,
    size: int,
    progress: Callable[[int], None] = lambda done: None,
) -> Seen:
    """Look at all pictures of a split.

    Args:
        size: the model's resolution in pixels.
        progress: told the number of pictures done since the last time.
    """
    seen = Seen()
    sample = set(np.unique(np.linspace(0, len(pictures) - 1, _DECODED).astype(int)).tolist())
    encoded: Callable[[int], Encoded] | None = getattr(pictures, "encoded", None)

    def one(index: int) -> tuple[dict[str, Any], str | None]:
        try:
            facts = {} if encoded is None else _header(*encoded(index))
            if index in sample or facts.get("suspicious"):
                facts["decoded"] = True
                resize_and_crop(pictures[index], size)
        except DataError as error:
            return {}, str(error).partition("\n")[0]
        finally:
            progress(1)
        return facts, None

    indices = range(len(pictures)) if encoded is not None else sorted(sample)
    with ThreadPoolExecutor(_THREADS) as threads:
        for facts, failure in threads.map(one, indices):
            _count(seen, facts, failure)
    if encoded is not None and labels is not None:
        seen.twins = _twins(encoded, labels)
    return seen


def _count(seen: Seen, facts: dict[str, Any], failure: str | None) -> None:
    if failure is not None:
        seen.unreadable.append(failure)
    seen.opened += bool(facts.get("mode")) or failure is not None
    seen.decoded += bool(facts.get("decoded"))
    seen.sixteen += bool(facts.get("sixteen"))
    seen.turned += bool(facts.get("turned"))
    seen.animated += bool(facts.get("animated"))
    if (mode := facts.get("mode")) and mode not in _HEADER_TELLS:
        seen.modes[mode] += 1


def _header(name: str, source: bytes | Path | None) -> dict[str, Any]:
    """Facts of one encoded picture; `suspicious` where only decoding tells whether it can be used.

    Raises:
        DataError: it is no picture, or its checksums are wrong.
    """
    from PIL import Image

    if source is None:
        return {"suspicious": True}  # decoding says that there is none
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
            facts = {
                "mode": picture.mode,
                "sixteen": is_sixteen_bit(picture),
                "turned": _tells_orientation(picture) and orientation(picture) in range(2, 9),
                "animated": picture.format != "MPO" and getattr(picture, "is_animated", False),
                "suspicious": picture.mode not in _HEADER_TELLS and not is_sixteen_bit(picture),
            }
            if picture.format in ("JPEG", "MPO"):
                facts["suspicious"] |= _END_OF_JPEG not in _tail(source)
            elif picture.format == "PNG":
                picture.verify()  # the checksums of the whole file
    except Exception as error:  # decoders raise whatever damaged bytes make them stumble over
        raise unreadable(name, error) from error
    return facts


def _tells_orientation(picture: Image) -> bool:
    """Whether the orientation can be asked for without decoding; a PNG may have it behind its pixels."""
    return picture.format != "PNG" or "exif" in picture.info


def _tail(source: bytes | Path) -> bytes:
    if isinstance(source, bytes):
        return source[-_TAIL:]
    with source.open("rb") as file:
        file.seek(-min(_TAIL, source.stat().st_size), io.SEEK_END)
        return file.read()


def _twins(encoded: Callable[[int], Encoded], labels: NDArray[np.int64]) -> list[list[str]]:
    """Pictures of different labels with the same bytes. Only those of one length are compared."""
    lengths: dict[int, list[int]] = defaultdict(list)
    for index in range(len(labels)):
        lengths[_length(encoded(index)[1])].append(index)
    lengths.pop(-1, None)
    alike: dict[bytes, list[int]] = defaultdict(list)
    for rows in lengths.values():
        if _differ(labels, rows):
            for index in rows:
                alike[_digest(encoded(index)[1])].append(index)
    return [[encoded(index)[0] for index in rows] for rows in alike.values() if _differ(labels, rows)]


def _differ(labels: NDArray[np.int64], rows: Sequence[int]) -> bool:
    return len({int(labels[row]) for row in rows}) > 1


def _length(source: bytes | Path | None) -> int:
    """Bytes; -1 for what is not there."""
    if isinstance(source, bytes):
        return len(source)
    return source.stat().st_size if source is not None and source.is_file() else -1


def _digest(source: bytes | Path | None) -> bytes:
    content = source if isinstance(source, bytes) else source.read_bytes() if source is not None else b""
    return hashlib.blake2b(content, digest_size=16).digest()
