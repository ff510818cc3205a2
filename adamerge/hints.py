"""What an error text offers in the place of a name that is not known."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def near(name: str, names: Iterable[str], otherwise: str = "there is {}.", most: int = 2) -> str:
    """A hint at what was meant: the `most` nearest names, or all of them where none is near."""
    known = list(dict.fromkeys(str(n) for n in names))
    close = get_close_matches(name, known, n=most, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(f"'{c}'" for c in close) + "?"
    return otherwise.format(", ".join(known)) if known else otherwise.format("none")
