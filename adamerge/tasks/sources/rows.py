"""The pictures of a table's rows."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from adamerge.digests import sha256_of
from adamerge.errors import DataError
from adamerge.tasks.picture import read_picture, standard, unreadable

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL.Image import Image


class Rows:
    """The pictures alone, each decoded when asked for.

    Args:
        table: with a column of the feature Image.
        place: of the table, for messages.

    Raises:
        DataError: when a picture is asked for that is not there or cannot be read.
    """

    def __init__(self, table: Dataset, column: str, place: str) -> None:
        self._table = table
        self._column = column
        self._place = place

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> Image:
        name, source = self.encoded(index)
        if source is None:
            raise DataError(f"{name} has no picture; remove that row.")
        if isinstance(source, bytes):
            return read_picture(io.BytesIO(source), name)
        if source.is_file():
            return read_picture(source, name)
        try:  # in an archive or elsewhere, which `datasets` knows how to open
            return standard(self._table[index][self._column], name)
        except (OSError, ValueError, SyntaxError) as error:
            raise unreadable(name, error) from error

    def encoded(self, index: int) -> tuple[str, bytes | Path | None]:
        """The row's name and its bytes, or the file that they are in; None where there is neither."""
        value = self._encoded[index][self._column] or {}
        place = value.get("path")
        return f"Row {index} of {self._place}: column '{self._column}'", value.get("bytes") or (
            Path(place) if place else None
        )

    def digests(self, rows: Sequence[int]) -> list[str]:
        """The sha256 of each picture's bytes.

        Raises:
            DataError: a row without a picture.
        """
        return [_digest(*self.encoded(row)) for row in rows]

    @cached_property
    def _encoded(self) -> Dataset:
        from datasets import Image as ImageFeature

        return self._table.cast_column(self._column, ImageFeature(decode=False))


def _digest(name: str, source: bytes | Path | None) -> str:
    if source is None:
        raise DataError(f"{name} has no picture; remove that row.")
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    # What lies in an archive is known by its place there.
    return sha256_of(source) if source.is_file() else hashlib.sha256(str(source).encode()).hexdigest()
