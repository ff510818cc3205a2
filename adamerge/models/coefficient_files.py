"""Merging coefficients from a file: those of a finished run, or a published table."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class CoefficientTable:
    """A table of coefficients, whose rows and columns are found by name; the one row "all" serves every layer.

    Attributes:
        values: (layers, tasks).
    """

    file: Path
    layers: list[Any]
    tasks: list[Any]
    values: Tensor

    def of(self, keys: Iterable[str], names: tuple[str, ...]) -> Coefficients:
        """Those of an encoder's tensors, in their order, for the task vectors of these names.

        Raises:
            PoolError: a layer or task that the table does not have.
        """
        columns = _places(self.file, "task", self.tasks, names)
        if self.layers == ["all"]:
            return Coefficients(self.values[:, columns])
        keys = tuple(keys)
        whole, split = row_names(layer_table(keys)), row_names(layer_table(keys, "hf"))
        layout: Layout = "hf" if set(self.layers) & (set(split) - set(whole)) else "open_clip"
        rows = _places(self.file, "layer", self.layers, split if layout == "hf" else whole)
        return Coefficients(self.values[rows][:, columns], layout)


def with_start(pool: Pool, file: Path, origin: Origin = "base") -> Pool:
    """The pool with the coefficients of a file (`read_table`).

    Raises:
        PoolError: as for the file; a layer or task of the pool that its table does not have.
    """
    return replace(pool, coefficients=read_table(file, origin).of(pool.keys, pool.names))


def read_table(file: Path, origin: Origin = "base") -> CoefficientTable:
    """The table in a file, {"layers": [...], "tasks": [...], "values": [[...]]}.

    Args:
        origin: of the task vectors that it is for. The table says its own; one that does not is about the base.

    Raises:
        PoolError: a damaged file, or one of task vectors from elsewhere.
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
    return CoefficientTable(file, layers, tasks, values)


def _places(file: Path, what: str, given: list[Any], wanted: tuple[str, ...]) -> list[int]:
    missing = [name for name in wanted if name not in given]
    if missing:
        raise PoolError(
            f"start: {file} has no coefficients for {what} {', '.join(missing[:5])}"
            f"{' ...' if len(missing) > 5 else ''}; it has {', '.join(map(str, given[:5]))} ..."
        )
    return [given.index(name) for name in wanted]
