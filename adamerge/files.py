"""Files are written whole or not at all: to a temporary name beside the target, synced, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from adamerge.errors import RunError


def why_not_writable(folder: Path) -> str | None:
    """Make the folder; why nothing can be written into it, or None where something can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return error.strerror or str(error)
    return None if os.access(folder, os.W_OK) else os.strerror(errno.EACCES)


def make_folder(folder: Path) -> None:
    """Make the folder and those above it.

    Raises:
        RunError: it cannot be made, or nothing can be written into it.
    """
    if why := why_not_writable(folder):
        raise RunError(f"{folder} cannot be written: {why}.\n  Name another folder.")


@contextmanager
def write_atomically(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file that replaces `path` when the block ends well; after an error `path` is as it was.

    Raises:
        RunError: the disk is full, or nothing can be written there.
    """
    path = Path(path)
    if path.is_dir():
        raise RunError(f"{path} is a folder; name a file.")
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}.\n  Name another file.") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            state = "its last version is intact" if path.exists() else "nothing was written"
            raise RunError(
                f"The disk is full: {path} could not be written; {state}.\n"
                "  Free some space and run the same command again."
            ) from error
        raise


@contextmanager
def folder_atomically(path: str | Path) -> Iterator[Path]:
    """A folder to fill, which becomes `path` when the block ends well; after an error nothing is left of it.

    Raises:
        RunError: `path` is there already and not an empty folder, or the disk is full.
    """
    path = Path(path)
    refuse_occupied(path)
    make_folder(path.parent)
    try:
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name[:100]}."))
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}.\n  Name another folder.") from error
    try:
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())
        _sync_folder(temporary)
        os.replace(temporary, path)  # of an empty folder it takes the place
        _sync_folder(path.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(
                f"The disk is full: {path} could not be written; nothing was.\n  Free some space."
            ) from error
        raise


def refuse_occupied(folder: Path) -> None:
    """Raise a RunError unless `folder` is not there or empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(
            f"{folder} is there already and not empty; nothing is overwritten.\n  Name another folder."
        )


def atomic_write_text(path: str | Path, text: str) -> None:
    with write_atomically(path) as file:
        file.write(text.encode())


def _umask() -> int:
    """The permissions that new files lack: a temporary file starts with fewer."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
