"""Merging coefficients from a file: those of a finished run, or a published table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adamerge.errors import PoolError
from adamerge.merging import Coefficients, Pool, layer_table
from adamerge.merging.layers import Layout, row_names
from adamerge.merging.task_vectors import Origin

FILE = "coefficients.json"


def start_file(start: str | Path) -> Path:
    """The table's file, for a run folder or the file itself.

    Raises:
        PoolError: there is none.
    """
    path = Path(start)
    file = path / FILE if path.is_dir() else path
    if not file.exists():
        raise PoolError(
            f"start: {path} has no merging coefficients ({file} does not exist).\n"
            "  Give the folder of a finished run that learned coefficients, or a coefficients.json."
        )
    return file


def with_start(pool: Pool, file: Path, origin: Origin = "base") -> Pool:
    """The pool with a table of coefficients from {"layers": [...], "tasks": [...], "values": [[...]]}.

    Rows and columns are found by name; the one row "all" serves every layer.

    Args:
        origin: of the pool's task vectors. The table says its own; one that does not is about the base.

    Raises:
        PoolError: a damaged file, or one without this pool's layers or tasks, or of task vectors from elsewhere.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        layers, tasks = list(content["layers"]), list(content["tasks"])
        values = torch.tensor(content["values"], dtype=torch.get_default_dtype())
    except (ValueError, KeyError, TypeError) as error:
        raise PoolError(f"start: {file} is no table of coefficients ({error!r}).") from error
    if (learned := content.get("origin", "base")) != origin:
        raise PoolError(
            f"start: {file} has coefficients of task vectors with origin={learned}; here it is origin={origin}.\n"
            f"  Give origin={learned}, or another start."
        )
    if values.shape != (len(layers), len(tasks)):
        raise PoolError(
            f"start: {file} has {len(layers)} layers and {len(tasks)} tasks, but values of {tuple(values.shape)}."
        )
    columns = _places(file, "task", tasks, pool.names)
    rows, layout = _rows(file, layers, pool, values)
    return replace(pool, coefficients=Coefficients(rows[:, columns], layout))


def _rows(file: Path, layers: list[Any], pool: Pool, values: Tensor) -> tuple[Tensor, Layout]:
    """The table's rows in the order of the pool's layers, and what a layer is in it."""
    if layers == ["all"]:
        return values, "open_clip"
    names = row_names(layer_table(pool.keys))
    split = row_names(layer_table(pool.keys, "hf"))
    layout: Layout = "hf" if set(layers) & (set(split) - set(names)) else "open_clip"
    wanted = split if layout == "hf" else names
    return values[_places(file, "layer", layers, wanted)], layout


def _places(file: Path, what: str, given: list[Any], wanted: tuple[str, ...]) -> list[int]:
    missing = [name for name in wanted if name not in given]
    if missing:
        raise PoolError(
            f"start: {file} has no coefficients for {what} {', '.join(missing[:5])}"
            f"{' ...' if len(missing) > 5 else ''}; it has {', '.join(map(str, given[:5]))} ..."
        )
    return [given.index(name) for name in wanted]
