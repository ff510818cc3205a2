"""Paths below a data folder, as suites name them."""

from __future__ import annotations

from pathlib import Path

from adamerge.errors import DataError


def folder_of(what: str, root: str | None) -> Path:
    """The data folder `root`, which holds `what`.

    Raises:
        DataError: no root; a suite's root is null until the user has said where the data lies.
    """
    if root is None:
        raise DataError(
            f"The folder that holds {what} is not known.\n"
            "  Set suite.data=<folder> or the environment variable ADAMERGE_DATA."
        )
    return Path(root).expanduser()
