"""Results that never change are computed once: small tensors on disk, named by what they were made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from adamerge.checkpoints import open_checkpoint, save_tensors
from adamerge.errors import CheckpointError, RunError
from adamerge.files import why_not_writable

Tensors = dict[str, Tensor]


def cached(folder: Path, made_from: Mapping[str, Any], make: Callable[[], Tensors]) -> Tensors:
    """The tensors that `make` returns, read from `folder` if they were made before.

    `made_from` must hold everything that the result depends on, as plain data. A damaged file is made anew.

    Raises:
        RunError: nothing can be written into the folder; this is found before anything is computed.
    """
    digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:24]
    path = folder / f"{digest}.safetensors"
    if path.exists():
        try:
            return open_checkpoint(path).state
        except CheckpointError:
            path.unlink()
    _check_writable(folder)
    tensors = make()
    save_tensors(path, tensors, {"made_from": json.dumps(made_from, sort_keys=True)})
    return tensors


def _check_writable(folder: Path) -> None:
    if why := why_not_writable(folder):
        raise RunError(
            f"Nothing can be written into the cache, {folder}: {why}.\n"
            "  Set ADAMERGE_CACHE=<folder> to one that can be written: what is frozen is computed once and kept there."
        )
