"""The end of a run: pictures, then the results, then what is shown on the console."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from adamerge.report.figures import write_figures
from adamerge.report.table import results_table
from adamerge.tracking.results import Results, write_results


def finish(folder: Path, results: Results, console: Console, again: bool = False) -> None:
    """Write the figures and, last of all, results.json; print the table and the paths.

    `again`: the run was finished before; nothing is written.
    """
    if again:
        console.print(f"This run is finished already: {folder}", highlight=False)
    else:
        write_figures(folder, results)
        write_results(folder, results)
    console.print(results_table(results))
    console.print(f"run folder: {folder}", highlight=False, soft_wrap=True)
    for figure in sorted((folder / "figures").glob("*.png")):
        console.print(f"  {figure}", highlight=False, soft_wrap=True)
