"""The one way from a config to a finished run folder, for `train` and `merge` alike."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from adamerge.checkpoints import save_tensors
from adamerge.console import plain_console
from adamerge.files import atomic_write_text
from adamerge.memory import reset_peak
from adamerge.methods.base import Method
from adamerge.models.finished import FILE as FINISHED
from adamerge.models.finished import MERGED, save_finished
from adamerge.report.summary import record, show
from adamerge.runs.adapting import adapt
from adamerge.runs.backbones import device_of
from adamerge.runs.choosing import chosen
from adamerge.runs.evaluating import evaluate, keep_references, references_of, represent
from adamerge.runs.folder import at_work_in, clear, relatives, rename, start_folder
from adamerge.runs.images import suite_name
from adamerge.runs.mirroring import mirrored
from adamerge.runs.routing import routers_of
from adamerge.runs.run import Run, open_run
from adamerge.runs.statistics import statistics_of
from adamerge.runs.sweep import in_sweep, note
from adamerge.runs.sweep import line as sweep_line
from adamerge.runs.trained import save_heads
from adamerge.settings.commands import RunSettings
from adamerge.tracking.journal import Journal
from adamerge.tracking.mirror import Mirror
from adamerge.tracking.predictions import FILE as PREDICTIONS
from adamerge.tracking.predictions import write_predictions
from adamerge.tracking.preset import Deviations, started_from, write_preset
from adamerge.tracking.results import Results, read_results


def execute(settings: RunSettings, deviations: Callable[[RunSettings], Deviations]) -> Results:
    """Merge, adapt, evaluate, record. A finished run is shown, an interrupted one goes on; `rerun` begins anew.

    Args:
        deviations: how settings differ from the preset that they name.

    Raises:
        RunError: another process is at the same run, or the pictures changed meanwhile.
    """
    run = open_run(settings)
    console = plain_console()
    note(run.folder)
    rerun = settings.rerun
    if not rerun and _finished(run):
        return _shown_again(run, console)
    with at_work_in(run.folder):
        if not rerun and _finished(run):  # by another process, since we looked
            return _shown_again(run, console)
        _begin(run, rerun, console, deviations(settings))
        with mirrored(settings, run.folder) as mirrors:
            results = _work(run, mirrors, console)
    _tell(run.folder, results, console)
    return results


def _finished(run: Run) -> bool:
    return (run.folder / "results.json").exists()


def _shown_again(run: Run, console: Console) -> Results:
    results = read_results(run.folder)
    if run.settings.name is not None:
        rename(run.folder, run.settings.name)
    _tell(run.folder, results, console, again=True)
    if missing := [name for name in run.settings.routing if name not in results.routing]:
        console.print(
            f"It was not evaluated with routing by {', '.join(missing)}, which needs no new run:\n"
            f"  python -m adamerge evaluate run={run.folder} 'routing=[{','.join(missing)}]'",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )
    return results


def _begin(run: Run, rerun: bool, console: Console, deviations: Deviations) -> None:
    """Write what the run is, and say how it begins.

    Args:
        deviations: of the settings as they were given, from which `run.settings` was settled, from its preset.
    """
    how = ", goes on from its last checkpoint" if (run.folder / "checkpoints" / "last.ckpt").exists() else ""
    if rerun:
        how = ", begins anew: what was there is removed" if (run.folder / "config.yaml").exists() else ""
        clear(run.folder)
    lineage = run.lineage
    start_folder(run.settings, run.folder, lineage)
    _write_preset(run, deviations)
    precision = run.settings.trainer.precision
    if precision != "32-true":
        how = f", {precision}{how}"
    console.print(
        Text.assemble(
            (run.name, "bold"),
            f" on {suite_name(run.settings.suite)}, seed {run.settings.seed}, run {run.id}{how}",
        ),
        highlight=False,
        soft_wrap=True,
    )
    for line in relatives(run.folder, lineage):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _write_preset(run: Run, deviations: Deviations) -> None:
    """How the settings, as they were given, differ from their preset, and what the run starts from: published numbers
    are compared by it."""
    file = run.paths.get("start")
    start = None if file is None else started_from(str(run.settings.start), Path(file))
    write_preset(run.folder, deviations, start)


def _work(run: Run, mirrors: Sequence[Mirror], console: Console) -> Results:
    """From the weight files to results.json."""
    reset_peak(device_of(run.settings.trainer))
    started = time.perf_counter()
    pool, data = run.open()
    ruled, choice = chosen(run, pool, data, statistics_of(run, pool, data))
    method = run.build_on(ruled)
    prepared = time.perf_counter()
    recorded = adapt(run, method, pool, data, console, mirrors)
    adapted = time.perf_counter()
    save_parts(run.folder, method, run.settings.origin)
    save_heads(run.folder, pool.heads, {task.name: task.classes for task in data.tasks})
    if (kept := method.kept()) is not None:
        save_finished(run.folder, kept)
    references = references_of(run, pool, data)
    routers = routers_of(run, run.settings.routing, pool, data)
    evaluated = evaluate(run, method, pool, data, references, routers)
    if run.settings.evaluation.keep_predictions:
        write_predictions(run.folder / PREDICTIONS, evaluated.predictions)
    keep_references(run, pool, data, references)
    represent(run, method, pool, data, _hardest(evaluated.results))
    steps = Journal(run.folder / "journal.jsonl").read()
    seconds = {
        "prepare": prepared - started,
        "adapt": recorded + sum(step["seconds"] for step in steps),
        "load": sum(step.get("seconds_loading", 0.0) for step in steps),
        "evaluate": time.perf_counter() - adapted,
    }
    run.inputs.refuse_changed()
    seconds = {name: round(value, 3) for name, value in seconds.items()}
    size = None if kept is None else size_of(run.folder)
    results = replace(evaluated.results, seconds=seconds, choice=choice, bytes=size)
    record(run.folder, results)
    return results


def _hardest(results: Results) -> str:
    """The task that weight averaging moves furthest from its expert: the same for every method."""
    agreement = results.baselines["weight_average"].agreement
    return min(results.tasks, key=lambda task: agreement[task] or 0.0)


def _tell(folder: Path, results: Results, console: Console, again: bool = False) -> None:
    """The run's table; in a sweep one line, as its table comes at the end."""
    if in_sweep():
        console.print(sweep_line(results, folder, again), highlight=False, soft_wrap=True, markup=False)
    else:
        show(folder, results, console, again)


def size_of(folder: Path) -> int:
    """Bytes of the files that a finished run predicts from."""
    files = (folder / name for name in (MERGED, FINISHED, "state.safetensors"))
    return sum(file.stat().st_size for file in files if file.exists())


def save_parts(folder: Path, method: Method, origin: str = "base") -> None:
    """What was trained, the merged encoder where there is one, and the coefficients as plain numbers.

    Args:
        origin: of the task vectors that the coefficients are of.
    """
    if trained := method.state_dict():
        save_tensors(folder / "state.safetensors", trained)
    if method.one_encoder:
        save_tensors(folder / MERGED, method.merged_state_dict())
    if table := method.coefficients():
        layers = list(next(iter(table.values())))
        values = [[table[task][layer] for task in table] for layer in layers]
        content = {"layers": layers, "tasks": list(table), "origin": origin, "values": values}
        atomic_write_text(folder / "coefficients.json", json.dumps(content) + "\n")
