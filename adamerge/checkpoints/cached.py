"""Results that never change are computed once: small tensors on disk, named by what they were made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from adamerge.checkpoints import open_checkpoint, save_tensors
from adamerge.checkpoints.saving import sidecar
from adamerge.digests import file_digests
from adamerge.errors import CheckpointError, RunError
from adamerge.files import why_not_writable

Tensors = dict[str, Tensor]


def cached(folder: Path, made_from: Mapping[str, Any], make: Callable[[], Tensors]) -> Tensors:
    """The tensors that `make` returns, read from `folder` if they were made before.

    `made_from` must hold everything that the result depends on, as plain data. A damaged file is made anew.

    Raises:
        RunError: nothing can be written into the folder; this is found before anything is computed.
    """
    path = _path(folder, made_from)
    if path.exists():
        try:
            return open_checkpoint(path).state
        except CheckpointError:
            path.unlink(missing_ok=True)
    return _make(path, made_from, make)


def cached_file(folder: Path, made_from: Mapping[str, Any], make: Callable[[], Tensors]) -> Path:
    """As `cached`, but the safetensors file in which the tensors lie: they may be more than fit into memory.

    A file whose content is not that of its `.sha256` is made anew.
    """
    path = _path(folder, made_from)
    if path.exists() and not _is_whole(path):
        path.unlink(missing_ok=True)
    if not path.exists():
        _make(path, made_from, make)
    return path


def _path(folder: Path, made_from: Mapping[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:24]
    return folder / f"{digest}.safetensors"


def _make(path: Path, made_from: Mapping[str, Any], make: Callable[[], Tensors]) -> Tensors:
    _check_writable(path.parent)
    tensors = make()
    save_tensors(path, tensors, {"made_from": json.dumps(made_from, sort_keys=True)})
    return tensors


def _is_whole(path: Path) -> bool:
    beside = sidecar(path)
    noted = beside.read_text(encoding="utf-8").split()[:1] if beside.exists() else []
    return noted == file_digests([path], str(path.absolute()))


def _check_writable(folder: Path) -> None:
    if why := why_not_writable(folder):
        raise RunError(
            f"Nothing can be written into the cache, {folder}: {why}.\n"
            "  Set ADAMERGE_CACHE=<folder> to one that can be written: what is frozen is computed once and kept there."
        )
