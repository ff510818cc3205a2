"""`compare <folders...>`: tables and a page of finished runs, over seeds. Reads only what the runs wrote."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from adamerge.checkpoints.atomic import atomic_write_text
from adamerge.errors import ConfigError
from adamerge.report.choice import pick, pick_table
from adamerge.report.collect import Collected, collect
from adamerge.report.comparison import console_table, csv_table, latex, markdown
from adamerge.report.html.page import page

_USAGE = (
    "compare <folder> ... [out=<folder>] [--pick]: compares the finished runs in and below the folders, over seeds.\n"
    "--pick chooses the best without looking at a label, by agreement with the experts and their certainty.\n"
    "Writes compare.md, compare.csv, compare.tex and report.html into out (default: <first folder>/report)."
)


def run(words: list[str]) -> None:
    """Print the tables and write them.

    Raises:
        ConfigError: no folder, or an option that does not exist.
        RunError: a folder without runs.
    """
    if words in (["-h"], ["--help"]):
        sys.stdout.write(f"{_USAGE}\n")
        return
    options = dict(word.split("=", 1) for word in words if "=" in word)
    folders = [Path(word) for word in words if "=" not in word and word != "--pick"]
    if not folders or set(options) - {"out"}:
        raise ConfigError(f"{_USAGE}\n  Got: {' '.join(words) or 'nothing'}.")
    collected = collect(folders)
    out = Path(options.get("out", folders[0] / "report"))
    _write(collected, out)
    console = Console()
    for comparison in collected.comparisons:
        console.print(console_table(comparison))
        if "--pick" in words:
            console.print(pick_table(comparison))
            console.print(pick(comparison), highlight=False)
    for folder, reason in collected.unfinished:
        console.print(f"left out: {folder}: {reason}", highlight=False, soft_wrap=True, markup=False)
    console.print(f"tables: {out}/compare.md, .csv, .tex", highlight=False, soft_wrap=True)
    console.print(f"page: {out}/report.html", highlight=False, soft_wrap=True)


def _write(collected: Collected, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    titled = [f"## {c.suite}, {c.backbone}\n\n{markdown(c)}" for c in collected.comparisons]
    atomic_write_text(out / "compare.md", "\n".join(titled))
    atomic_write_text(out / "compare.csv", csv_table(collected.comparisons))
    atomic_write_text(out / "compare.tex", "\n".join(latex(c) for c in collected.comparisons))
    atomic_write_text(out / "report.html", page(collected))
