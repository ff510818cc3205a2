"""What is a layer: one row of the table of merging coefficients.

The reference gives every tensor of the encoder (each weight, bias, gain, embedding) its own coefficient per
task. Hugging Face checkpoints keep the query, key and value projections apart where open_clip fuses them, so
`layout="hf"` splits the fused tensors into three rows each.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from adamerge.architecture import fusing

Layout = Literal["open_clip", "hf"]


@dataclass(frozen=True)
class Layer:
    """One tensor of the encoder and the rows of the coefficient table that merge it.

    A tensor of several rows is cut into that many equal parts along its first dimension.
    """

    key: str
    first_row: int
    names: tuple[str, ...]

    @property
    def rows(self) -> slice:
        return slice(self.first_row, self.first_row + len(self.names))


def layer_table(keys: Iterable[str], layout: Layout = "open_clip") -> tuple[Layer, ...]:
    """The layers of an encoder, in the order of its state dict."""
    layers: list[Layer] = []
    row = 0
    for key in keys:
        names = _row_names(key) if layout == "hf" else (key,)
        layers.append(Layer(key, row, names))
        row += len(names)
    return tuple(layers)


def row_names(layers: Iterable[Layer]) -> tuple[str, ...]:
    return tuple(name for layer in layers for name in layer.names)


def row_count(layers: Iterable[Layer]) -> int:
    return len(row_names(layers))


def _row_names(key: str) -> tuple[str, ...]:
    names = fusing(key)
    return (key,) if names is None else names.parts(key)
