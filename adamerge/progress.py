"""Progress of work that is counted in images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from adamerge.console import plain_console


@contextmanager
def image_progress(title: str, images: Mapping[str, Sized]) -> Iterator[Callable[[int], None]]:
    """Shows a bar while the block runs; the yielded function is told how many images are done."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = plain_console()
    # Where nobody watches (a log file), a bar would leave blank lines.
    with Progress(*columns, transient=True, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(title, total=sum(map(len, images.values())))
        yield lambda done: progress.advance(bar, done)
