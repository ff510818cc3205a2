"""`compare <folders...>`: tables and a page of finished runs, over seeds. Reads only what the runs wrote."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentError, ArgumentParser, Namespace
from pathlib import Path

from rich.console import Console

from adamerge.console import plain_console
from adamerge.errors import ConfigError, RunError
from adamerge.files import atomic_write_text, make_folder
from adamerge.report.choice import pick, pick_table
from adamerge.report.collect import Collected, apart, collect, run_folders
from adamerge.report.comparison import console_table, latex, markdown
from adamerge.report.evidence_tables import (
    as_json,
    console_evidence,
    evidence_in_latex,
    evidence_in_markdown,
    refused_lines,
)
from adamerge.report.html.page import page
from adamerge.report.plain_table import csv_table
from adamerge.report.protocols import protocols_in_markdown, stream_console, streams_in_markdown
from adamerge.report.routing import routing_console, routing_in_markdown
from adamerge.tracking.mirror import replay
from adamerge.tracking.run_record import RunRecord
from adamerge.tracking.weights_and_biases import WandbMirror
from adamerge.tracking.workspace import save, workspace


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="adamerge compare",
        description="Compares the finished runs in and below the folders, over seeds. "
        "Writes compare.md, .csv, .tex, .json and report.html into out (default: <first folder>/report).",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("folders", nargs="+", metavar="folder | out=<folder>")
    parser.add_argument(
        "--pick",
        action="store_true",
        help="choose the best without looking at a label, by agreement with the experts and their certainty",
    )
    parser.add_argument(
        "--wandb", metavar="ENTITY/PROJECT", help="show all runs at W&B too: finished, failed and killed ones"
    )
    parser.add_argument(
        "--wandb-workspace", metavar="ENTITY/PROJECT", help="make the W&B dashboard that compares methods"
    )
    return parser


def run(words: list[str]) -> None:
    """Print the tables and write them; mirror the runs and make a dashboard at W&B where that is asked for.

    Raises:
        ConfigError: no folder, or an option that does not exist.
        RunError: a folder without runs, or W&B cannot be reached.
    """
    given = _read(words)
    options = dict(word.split("=", 1) for word in given.folders if "=" in word)
    folders = [Path(word) for word in given.folders if "=" not in word]
    if not folders or set(options) - {"out"}:
        raise ConfigError(f"{_parser().format_usage()}  Got: {' '.join(words)}.")
    collected = collect(folders)
    out = Path(options.get("out", folders[0] / "report"))
    _write(collected, out)
    console = plain_console()
    _show(collected, console, given.pick)
    console.print(f"tables: {out}/compare.md, .csv, .tex, .json", highlight=False, soft_wrap=True)
    console.print(f"page: {out}/report.html", highlight=False, soft_wrap=True)
    if given.wandb is not None:
        _mirror(folders, *_project(given.wandb), console)
    if given.wandb_workspace is not None:
        tasks = dict.fromkeys(task for c in collected.comparisons for task in c.tasks)
        entity, project = _project(given.wandb_workspace)
        if entity is None:
            raise ConfigError(f"--wandb-workspace {project}: give <entity>/<project>.")
        address = save(workspace(entity, project, list(tasks)), out)
        console.print(f"workspace: {address}", highlight=False, soft_wrap=True)


def _read(words: list[str]) -> Namespace:
    parser = _parser()
    if {"-h", "--help"} & set(words):
        sys.stdout.write(parser.format_help())
        raise SystemExit(0)
    try:
        given, unknown = parser.parse_known_intermixed_args(words)
    except ArgumentError as error:
        raise ConfigError(f"{parser.format_usage()}  {error}.") from error
    if unknown:
        raise ConfigError(f"{parser.format_usage()}  There is no option {' '.join(unknown)}.")
    return given


def _show(collected: Collected, console: Console, picks: bool) -> None:
    for comparison in collected.comparisons:
        console.print(console_table(comparison))
        if (table := console_evidence(comparison)) is not None:
            console.print(table)
        for line in refused_lines(comparison):
            console.print(line, highlight=False, soft_wrap=True, markup=False)
        if (unknown := routing_console(comparison)) is not None:
            console.print(unknown)
        if picks:
            console.print(pick_table(comparison))
            console.print(pick(comparison), highlight=False)
    for line in apart(collected.comparisons):
        console.print(line, highlight=False, soft_wrap=True)
    for table in stream_console(collected.comparisons):
        console.print(table)
    for folder, reason in collected.unfinished:
        console.print(f"left out: {folder}: {reason}", highlight=False, soft_wrap=True, markup=False)


def _project(words: str) -> tuple[str | None, str]:
    """entity/project, or project alone for the login's own."""
    entity, _, project = words.rpartition("/")
    if not project or "/" in entity:
        raise ConfigError(f"'{words}' is no W&B project; give <entity>/<project>.")
    return entity or None, project


def _mirror(folders: list[Path], entity: str | None, project: str, console: Console) -> None:
    """Show every run at W&B; a damaged one is told and left out."""
    for folder in run_folders(folders):
        run = RunRecord(folder)
        try:
            run.check()
        except RunError as error:
            console.print(f"left out: {error}", highlight=False, soft_wrap=True, markup=False)
            continue
        replay(folder, WandbMirror(folder, project=project, entity=entity))
        console.print(f"{run.state()}, shown at W&B: {folder}", highlight=False, soft_wrap=True)


def _write(collected: Collected, out: Path) -> None:
    make_folder(out)
    titled = [
        f"## {c.title}\n\n{markdown(c)}{evidence_in_markdown(c)}{protocols_in_markdown(c)}{routing_in_markdown(c)}"
        for c in collected.comparisons
    ]
    if streams := streams_in_markdown(collected.comparisons):
        titled.append(streams)
    atomic_write_text(out / "compare.md", "\n".join(titled))
    atomic_write_text(out / "compare.csv", csv_table(collected.comparisons))
    tables = [table for c in collected.comparisons for table in (latex(c), evidence_in_latex(c)) if table]
    atomic_write_text(out / "compare.tex", "\n".join(tables))
    content = {"comparisons": [as_json(c) for c in collected.comparisons]}
    atomic_write_text(out / "compare.json", json.dumps(content, indent=2) + "\n")
    atomic_write_text(out / "report.html", page(collected))
