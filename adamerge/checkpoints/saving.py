"""Saves tensors atomically with a sha256 beside them, and gives files an identity."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adamerge.checkpoints.peft_config import CONFIG
from adamerge.checkpoints.weight_files import EXTENSIONS, split_part
from adamerge.digests import file_digests
from adamerge.errors import CheckpointError
from adamerge.files import atomic_write_text, make_folder, write_atomically

_INDEX = ".index.json"
_SHA256 = re.compile("[0-9a-f]{64}")


def sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


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


def save_stream(
    path: str | Path, shapes: Mapping[str, Sequence[int]], tensor: Callable[[str], Tensor]
) -> str:
    """Write safetensors tensor by tensor, byte by byte what `save_tensors` writes of the same float32 tensors.

    Args:
        shapes: of all tensors; a file names them before the first number.
        tensor: the float32 tensor of a key; asked for once each, in the order of the file.

    Raises:
        RunError: the disk is full; what was there before is intact.
    """
    path = Path(path)
    make_folder(path.parent)
    content = hashlib.sha256()
    sidecar(path).unlink(missing_ok=True)
    with write_atomically(path) as file:
        for piece in _in_pieces(shapes, tensor):
            content.update(piece)
            file.write(piece)
    atomic_write_text(sidecar(path), f"{content.hexdigest()}  {path.name}\n")
    return content.hexdigest()


def _in_pieces(
    shapes: Mapping[str, Sequence[int]], tensor: Callable[[str], Tensor]
) -> Iterator[bytes | memoryview]:
    """The header (its length, then JSON with blanks up to 8 bytes), then the tensors in the order of their names."""
    header: dict[str, Any] = {"__metadata__": {}}
    end = 0
    for key in sorted(shapes):
        start, end = end, end + 4 * math.prod(shapes[key])
        header[key] = {"dtype": "F32", "shape": list(shapes[key]), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for key in sorted(shapes):
        found = tensor(key).detach().cpu().contiguous()
        if found.dtype != torch.float32 or tuple(found.shape) != tuple(shapes[key]):
            raise ValueError(f"{key} is {found.dtype} {tuple(found.shape)}, not float32 {tuple(shapes[key])}")
        yield memoryview(found.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]


def weight_files(path: Path) -> list[Path]:
    """The files that hold the weights of a checkpoint (`<file>::<name>` too): itself, or those in its folder."""
    path = Path(split_part(str(path))[0])
    return sorted(p for p in path.iterdir() if p.suffix in EXTENSIONS) if path.is_dir() else [path]


def fingerprint(path: str | Path) -> str:
    """The identity of a checkpoint's content: the sha256 of the whole file. That of a folder, or of an
    index of several files, is that of its weight files; an adapter's configuration belongs to it.

    A file is read once per machine, and not at all where its `.sha256` or the Hub's name of it (its sha256) is younger
    than the file.

    Raises:
        CheckpointError: there is no such file.
    """
    place, part = split_part(str(path))
    path = Path(place).expanduser()
    if part:
        return hashlib.sha256(f"{part} {fingerprint(path)}".encode()).hexdigest()
    if not path.exists():
        raise CheckpointError(f"There is no checkpoint at {path}.")
    if path.is_dir():
        return _of_parts([*sorted(path.glob(f"*{_INDEX}")), *weight_files(path), *_scales(path)])
    own = _stated(path) or _read(path)
    parts = [*(_shards(path) if path.name.endswith(_INDEX) else ()), *_scales(path.parent)]
    return _of_parts(parts, own) if parts else own


def _scales(folder: Path) -> list[Path]:
    """The configuration without which an adapter's tensors mean nothing, where there is one."""
    return [file for file in (folder / CONFIG,) if file.exists()]


def _of_parts(files: Sequence[Path], own: str = "") -> str:
    parts = [own, *(f"{file.name} {_stated(file) or _read(file)}" for file in files)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _read(file: Path) -> str:
    return file_digests([file], str(file.absolute()))[0]


def _shards(index: Path) -> list[Path]:
    """The files that an index of a checkpoint in several files names."""
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is no index of weight files ({error!r}).\n  Get it again.") from error
    if missing := [name for name in names if not (index.parent / name).exists()]:
        raise CheckpointError(f"{index} names {len(missing)} files that are not there, e.g. {missing[0]}.")
    return [index.parent / name for name in names]


def _stated(path: Path) -> str | None:
    """The sha256 that is noted beside the file, if the note is younger than the content."""
    changed = path.stat().st_ctime_ns
    beside, blob = sidecar(path), path.resolve()
    if beside.exists() and beside.stat().st_ctime_ns > changed:
        noted = beside.read_text(encoding="utf-8", errors="replace").split()[:1]
        if noted and _SHA256.fullmatch(noted[0]):
            return noted[0]
    # The Hub's cache: snapshots/<revision>/<file> is a link, younger than the blob that it leads to.
    linked = path.is_symlink() and blob.parent.name == "blobs" and _SHA256.fullmatch(blob.name)
    return blob.name if linked and path.lstat().st_ctime_ns > changed else None
