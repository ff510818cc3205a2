"""The merging coefficients that AdaMerging's authors published, as tables with names of layers and tasks.

They are lists of numbers in a Python file (src/merging_cofficient.py), a branch per method and model. The file is
parsed, never run. A list has one row for all layers, or one per entry of the checkpoints' state dict, the six text
tensors included (EnnengYang/AdaMerging). Column 0 is the base's fixed coefficient 1; the tasks follow in the papers'
order.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

from adamerge.architecture import OPEN_CLIP
from adamerge.checkpoints.keys import TEXT_LEFTOVERS
from adamerge.errors import CheckpointError
from adamerge.files import atomic_write_text, make_folder

TASKS = ("sun397", "stanford_cars", "resisc45", "eurosat", "svhn", "gtsrb", "mnist", "dtd")
_BEFORE, _AFTER = TEXT_LEFTOVERS[:3], TEXT_LEFTOVERS[3:]
_INPUT = (
    *(OPEN_CLIP.class_token, OPEN_CLIP.positions, OPEN_CLIP.projection, OPEN_CLIP.patches),
    *(f"{OPEN_CLIP.norm_before}.{kind}" for kind in ("weight", "bias")),
)
_OUTPUT = tuple(f"{OPEN_CLIP.norm_after}.{kind}" for kind in ("weight", "bias"))
Rows = list[list[float]]


def published_rows(count: int) -> list[str]:
    """The keys of the checkpoints' rows, `count` in all: 158 for ViT-B, 302 for ViT-L, and six less without the text.

    Raises:
        CheckpointError: another number of rows.
    """
    with_text = (count - len(_BEFORE + _INPUT + _AFTER) - 2) % 12 == 0
    blocks, rest = divmod(count - len(_INPUT) - 2 - (len(_BEFORE + _AFTER) if with_text else 0), 12)
    if rest or blocks < 1:
        raise CheckpointError(
            f"{count} rows of coefficients are those of no ViT; ViT-B has 158 (or 152), ViT-L 302 (296)."
        )
    visual = list(_INPUT)
    for block in range(blocks):
        visual += [f"{OPEN_CLIP.block(block)}.{name}" for name in OPEN_CLIP.tensors_of_block()]
    visual += _OUTPUT
    return [*_BEFORE, *visual, *_AFTER] if with_text else visual


def convert_tables(source: Path, folder: Path | None = None) -> list[Path]:
    """Write each table in `source` as <method>-<model>.json, which `start=` takes. Returns the files.

    Raises:
        CheckpointError: no tables in it, or one of another shape.
    """
    written = []
    for (method, model), rows in _tables(source):
        columns = {len(row) for row in rows}
        if columns != {1 + len(TASKS)}:
            continue  # one of the published lists leaves a task out
        layers = ["all"] if len(rows) == 1 else published_rows(len(rows))
        content = {
            "layers": layers,
            "tasks": TASKS,
            "values": [row[1:] for row in rows],
            "source": source.name,
        }
        path = (folder or source.parent) / f"{method}-{model}.json"
        make_folder(path.parent)
        atomic_write_text(path, json.dumps(content) + "\n")
        written.append(path)
    if not written:
        raise CheckpointError(f"{source} has no tables of merging coefficients for eight tasks.")
    return written


def _tables(source: Path) -> Iterator[tuple[tuple[str, str], Rows]]:
    """((method, model), rows) of every branch `method == ... and model == ...` that assigns a list of lists."""
    try:
        tree = ast.parse(source.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError, ValueError) as error:
        raise CheckpointError(f"{source} cannot be read as a Python file: {error}.") from error
    for node in ast.walk(tree):
        if not isinstance(node, ast.If):
            continue
        names = {
            compare.left.id: compare.comparators[0].value
            for compare in ast.walk(node.test)
            if isinstance(compare, ast.Compare)
            and isinstance(compare.left, ast.Name)
            and isinstance(compare.comparators[0], ast.Constant)
        }
        for statement in node.body:
            if {"method", "model"} <= set(names) and isinstance(statement, ast.Assign):
                yield (str(names["method"]), str(names["model"])), _numbers(source, statement.value)


def _numbers(source: Path, node: ast.expr) -> Rows:
    try:
        rows = [[float(number) for number in row] for row in ast.literal_eval(node)]
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{source}, line {node.lineno}: expected rows of numbers.") from error
    return rows
