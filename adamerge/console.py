"""Where commands print to."""

from __future__ import annotations

from rich.console import Console


def plain_console() -> Console:
    """A console that prints every text as it stands.

    Paths, class names and names of tasks hold what Rich takes for markup or an emoji: "out [v1]", "a:car:b".
    """
    return Console(markup=False, emoji=False)
