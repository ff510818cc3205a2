"""The end of a run: pictures, then the results, then what is shown on the console."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from adamerge.report.collect import flat_config
from adamerge.report.figures import write_figures
from adamerge.report.names import percent
from adamerge.report.published import published
from adamerge.report.table import results_table
from adamerge.tracking.preset import read_preset
from adamerge.tracking.results import Results, write_results


def record(folder: Path, results: Results) -> None:
    """Write the figures and, last of all, results.json."""
    write_figures(folder, results)
    write_results(folder, results)


def show(folder: Path, results: Results, console: Console, again: bool = False) -> None:
    """Print the table and the paths; `again`: the run was finished before."""
    if again:
        console.print(f"This run is finished already: {folder}", highlight=False)
    console.print(results_table(results))
    if line := published_line(folder, results):
        console.print(line, highlight=False)
    console.print(f"run folder: {folder}", highlight=False, soft_wrap=True)
    for figure in sorted((folder / "figures").glob("*.png")):
        console.print(f"  {figure}", highlight=False, soft_wrap=True)


def published_line(folder: Path, results: Results) -> str:
    """What the literature has for this run; empty where it has nothing."""
    config = folder / "config.yaml"
    known = published(results, flat_config(config), read_preset(folder)) if config.exists() else None
    if known is None:
        return ""
    accuracy = {task: result.accuracy for task, result in results.tasks.items()}
    text = f"published: {percent(known.average)} ({known.source}); {known.words(accuracy)}"
    return f"{text} ({known.note})" if known.note and known.confirmed else text
