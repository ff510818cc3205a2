"""references.safetensors as a comparison reads it, without torch: the classes that baselines predict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adamerge.errors import RunError

FILE = "references.safetensors"


def read_classes(folder: Path, names: Sequence[str]) -> dict[str, dict[str, NDArray[np.int64]]]:
    """{baseline: {task: (n,) predicted classes}} of a run folder's test pictures, of those that it has among `names`.

    Raises:
        RunError: a damaged file.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / FILE
    if not path.exists():
        return {}
    found: dict[str, dict[str, NDArray[np.int64]]] = {name: {} for name in names}
    try:
        with safe_open(path, framework="numpy") as file:
            for key in file.keys():  # noqa: SIM118 - it is no mapping
                name, _, task = key.partition("/")
                if name in found:
                    found[name][task] = file.get_tensor(key).astype(np.int64)
    except (OSError, SafetensorError, ValueError) as error:
        raise RunError(f"{path} is damaged: {error}.") from error
    return {name: by_task for name, by_task in found.items() if by_task}
