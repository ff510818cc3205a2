"""Saves tensors atomically with a sha256 beside them, and gives files an identity."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from adamerge.checkpoints.atomic import atomic_write_text, make_folder, write_atomically
from adamerge.checkpoints.weight_files import EXTENSIONS, split_part
from adamerge.errors import CheckpointError

_WHOLE = 64 << 20
_SAMPLE = 1 << 20


def sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return (
            hashlib.file_digest(file, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else _digest(file)
        )


def _digest(file) -> str:  # type: ignore[no-untyped-def]
    result = hashlib.sha256()
    while block := file.read(_SAMPLE):
        result.update(block)
    return result.hexdigest()


def save_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> str:
    """Write safetensors and `<path>.sha256`, each whole or not at all. Returns the sha256.

    Raises:
        RunError: the disk is full; what was there before is intact.
    """
    from safetensors.torch import save

    path = Path(path)
    make_folder(path.parent)
    data = save(
        {key: value.detach().cpu().contiguous() for key, value in tensors.items()}, dict(metadata or {})
    )
    digest = hashlib.sha256(data).hexdigest()
    # The old sum goes first: between the two renames the file must not look damaged.
    sidecar(path).unlink(missing_ok=True)
    with write_atomically(path) as file:
        file.write(data)
    atomic_write_text(sidecar(path), f"{digest}  {path.name}\n")
    return digest


def weight_files(path: Path) -> list[Path]:
    """The files that hold the weights of a checkpoint (`<file>::<name>` too): itself, or those in its folder."""
    path = Path(split_part(str(path))[0])
    return sorted(p for p in path.iterdir() if p.suffix in EXTENSIONS) if path.is_dir() else [path]


def fingerprint(path: str | Path) -> str:
    """A quick identity of a checkpoint's content: the sha256 of the file up to 64 MiB; above, of its size and its
    first, middle and last MiB. A folder's is that of its weight files.

    Raises:
        CheckpointError: there is no such file.
    """
    place, part = split_part(str(path))
    path = Path(place).expanduser()
    if part:
        return hashlib.sha256(f"{part} {fingerprint(path)}".encode()).hexdigest()
    if path.is_dir():
        parts = [f"{file.name} {fingerprint(file)}" for file in weight_files(path)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
    if not path.exists():
        raise CheckpointError(f"There is no checkpoint at {path}.")
    size = path.stat().st_size
    if size <= _WHOLE:
        return sha256_of(path)
    result = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for start in (0, size // 2, size - _SAMPLE):
            file.seek(start)
            result.update(file.read(_SAMPLE))
    return result.hexdigest()
