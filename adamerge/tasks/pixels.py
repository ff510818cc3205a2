"""Room for decoded pictures: in memory, in an unlinked file, or in a file that later runs find again."""

from __future__ import annotations

import os
import tempfile
import weakref
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from adamerge.cache_locks import hold, opening
from adamerge.errors import RunError
from adamerge.files import make_folder

# Larger stores are kept in an unlinked file: the system holds in memory what it has room for.
_IN_MEMORY_BYTES = 512 << 20
_FLUSH_EVERY = 1024


class Pixels:
    """uint8 pixels (n, size, size, 3), and which of them are decoded already.

    Attributes:
        digest: where the sha256 of all of them is noted, where they are kept.

    Args:
        shape: (n, size, size, 3).
        kept: where the pixels are kept for later runs (`.u8`, and `.done` beside it); None: for this process alone.

    Raises:
        RunError: no room in the folder for a store that is too large for memory.
    """

    def __init__(self, shape: tuple[int, ...], kept: Path | None = None) -> None:
        self._pending = 0
        self.digest = None if kept is None else kept.with_suffix(".sha256")
        if kept is None:
            self.values = _room(shape)
            self.done: NDArray[np.bool_] = np.zeros(shape[0], bool)
            self._file: Any = None
            return
        make_folder(kept.parent)
        with opening(kept.parent):
            self.values = _kept(kept.with_suffix(".u8"), np.dtype(np.uint8), shape)
            held = hold(kept.with_suffix(".u8"))
            self._file = _kept(kept.with_suffix(".done"), np.dtype(bool), shape[:1])
        # Marked in memory first: on the disk a mark must never come before its pixels.
        self.done = np.array(self._file)
        self._close = weakref.finalize(self, _end, self.values, self.done, self._file, held)

    def __setitem__(self, index: int, picture: NDArray[np.uint8]) -> None:
        self.values[index] = picture
        self.done[index] = True
        self._pending += 1

    def settle(self) -> None:
        """Write what was decoded, now and then, where it is kept."""
        if self._file is not None and (self._pending >= _FLUSH_EVERY or (self._pending and self.done.all())):
            _write(self.values, self.done, self._file)
            self._pending = 0


def _write(values: Any, done: NDArray[np.bool_], file: Any) -> None:
    values.flush()
    file[:] |= done
    file.flush()


def _end(values: Any, done: NDArray[np.bool_], file: Any, held: IO[bytes]) -> None:
    _write(values, done, file)
    held.close()


def _kept(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if not path.exists() or path.stat().st_size != size:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
            _reserve(file, size, path.parent)
        os.replace(file.name, path)
    return np.memmap(path, dtype, "r+", shape=shape)


def _room(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    size = int(np.prod(shape, dtype=np.int64))
    if size <= _IN_MEMORY_BYTES:
        return np.empty(shape, np.uint8)
    with tempfile.TemporaryFile() as file:
        _reserve(file, size, Path(tempfile.gettempdir()))
        return np.memmap(file, np.uint8, "r+", shape=shape)


def _reserve(file: Any, size: int, folder: Path) -> None:
    try:
        # Without the reservation a disk that fills up later would end the process (SIGBUS).
        if hasattr(os, "posix_fallocate") and size:
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    except OSError as error:
        if Path(str(file.name)).exists():
            os.unlink(file.name)
        raise RunError(
            f"No room for {size / 1e9:.1f} GB of decoded pictures in {folder} ({error.strerror}).\n"
            "  Free some space, or set TMPDIR (ADAMERGE_CACHE where they are kept) to a folder on a larger disk."
        ) from error
