"""`evaluate run=<folder>` or `evaluate checkpoint=<file>`: accuracy and agreement, without adapting.

The options beside `run` are laid over the run's own config (`run_options`). What they give is written into a file of
its own, with the options and with what made it: a run's results.json is what the run found. Without options, a run from
before predictions were kept is given its predictions.npz.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from adamerge.checkpoints import open_checkpoint
from adamerge.commands.composed import resolved
from adamerge.commands.overrides import Typed, typed_options
from adamerge.commands.run_options import OTHER_PICTURES, is_among, with_options
from adamerge.console import plain_console
from adamerge.digests import digest
from adamerge.errors import CheckpointError, ConfigError, DataError
from adamerge.files import atomic_write_text
from adamerge.merging import Pool
from adamerge.methods.base import Method
from adamerge.methods.static import Fixed
from adamerge.models.open_pool import check_encoder
from adamerge.models.positions import resized
from adamerge.report.table import results_table
from adamerge.runs.backbones import settled
from adamerge.runs.evaluating import Evaluated, evaluate, references_of
from adamerge.runs.folder import at_work_in
from adamerge.runs.images import Data, open_data, open_tasks
from adamerge.runs.routing import routers_of
from adamerge.runs.run import Run, open_run
from adamerge.runs.suite_pool import pool_with_heads
from adamerge.runs.trained import ClassNames, heads_of, load_alone, run_in, stands_alone, trained_method
from adamerge.settings.check import validate
from adamerge.settings.commands import EvaluateSettings, PoolSettings, TrainSettings
from adamerge.settings.mistakes import Mistakes
from adamerge.tasks.task import check_head
from adamerge.tracking import provenance
from adamerge.tracking.evaluations import FOLDER
from adamerge.tracking.predictions import FILE as PREDICTIONS
from adamerge.tracking.predictions import write_predictions
from adamerge.tracking.results import FILE as RESULTS
from adamerge.tracking.results import as_json, read_results

_OTHERWISE = (
    "Its predictions are not kept: the accuracies found here are not exactly those of its results.json, as may be on "
    "another device or with other versions."
)
_UNKNOWN = (
    "The experts are not here, and these are not the pictures that the run was compared with them on: how often it "
    "agrees with them is not known."
)
# What an encoder that is evaluated as it is has no use for.
_NOT_OF_A_CHECKPOINT = (
    *(
        "method",
        "rule",
        "post",
        "origin",
        "seed",
        "start",
        "record",
        "attack",
        "logger",
        "checkpoint_every",
        "workers",
    ),
    *("activation_checkpointing", "outputs"),
)


def run(settings: EvaluateSettings) -> None:
    """Evaluate one image encoder on the config's suite."""
    if settings.checkpoint is None:
        raise ConfigError("evaluate needs one of run=<run folder> and checkpoint=<file>.")
    mistakes = Mistakes()
    for option in typed_options(HydraConfig.get().overrides.task, mistakes):
        if option.key.partition(".")[0] in _NOT_OF_A_CHECKPOINT:
            mistakes.add(option.key, "cannot apply: the encoder of checkpoint=... is evaluated as it is.")
    mistakes.report()
    out, begun = _free(settings.out), provenance.this_sitting()
    evaluated = _of_checkpoint(settings, settings.checkpoint)
    plain_console().print(results_table(evaluated.results))
    if out is not None:
        _write(
            out, evaluated, {"checkpoint": settings.checkpoint}, begun, settings.evaluation.keep_predictions
        )


def run_over(typed: Sequence[Typed]) -> None:
    """Evaluate a finished run, with the options that apply to one.

    Raises:
        ConfigError: every option that does not, by name.
    """
    folder = Path(str(next(option.value for option in typed if option.key == "run")))
    others = [option for option in typed if option.key != "run"]
    if any(option.key == "checkpoint" for option in others):
        raise ConfigError("evaluate needs one of run=<run folder> and checkpoint=<file>, not both.")
    out = _free(next((str(option.value) for option in others if option.key == "out"), None))
    begun = provenance.this_sitting()
    original, alone = _opened(folder)
    mistakes = Mistakes()
    plain = resolved(
        with_options(OmegaConf.create(original.settings.model_dump()), others, mistakes), mistakes
    )
    mistakes.report()
    changed = replace(original, settings=validate(plain, TrainSettings))
    options = {option.key: option.value for option in others if option.key != "out"}
    heads, classes = heads_of(original, folder)
    if alone is None:
        pool = pool_with_heads(original.settings, original.paths, heads)
        method = trained_method(original, folder, pool)
    else:  # the experts' heads are those that the run was given, not those that it learned
        pool, method = replace(alone.pool, heads=dict(heads)), alone
    data = _data(changed.settings, pool, classes)
    console = plain_console()
    # Of the run's own pictures, whatever it is evaluated on.
    routers = routers_of(original, changed.settings.routing, pool)
    evaluated = evaluate(changed, method, pool, data, references_of(changed, pool, data), routers)
    if any(is_among(option, OTHER_PICTURES) for option in others):
        # It was that of the pictures that the run adapted on.
        evaluated = replace(evaluated, results=replace(evaluated.results, protocol=None))
    if options:
        console.print(f"evaluated with {_shown(options)}", highlight=False, soft_wrap=True, markup=False)
    console.print(results_table(evaluated.results))
    if not evaluated.results.baselines:
        console.print(_UNKNOWN, highlight=False, soft_wrap=True)
    if options and out is None:
        out = folder / FOLDER / f"{digest(options)[:12]}.json"
        out.parent.mkdir(exist_ok=True)
    keep = changed.settings.evaluation.keep_predictions
    if out is not None:
        _write(out, evaluated, {"run": original.id, "options": options}, begun, keep)
    elif keep:
        _fill_in(folder, evaluated)


def _opened(folder: Path) -> tuple[Run, Method | None]:
    """The run of a folder, and its method where that has to come from the folder alone: the weights are gone."""
    try:
        return run_in(folder), None
    except CheckpointError:
        if not stands_alone(folder):
            raise
    return load_alone(folder)


def _free(out: str | None) -> Path | None:
    """The file to write.

    Raises:
        ConfigError: it is there already, or the predictions beside it, or its folder is not.
    """
    path = None if out is None else Path(out).expanduser()
    for file in () if path is None else (path, _beside(path)):
        if file.exists():
            raise ConfigError(f"out: {file} is there already; nothing is overwritten. Name another file.")
    if path is not None and not path.parent.is_dir():
        raise ConfigError(f"out: there is no folder {path.parent} to write {path.name} into.")
    return path


def _beside(out: Path) -> Path:
    """Where the predictions of an evaluation lie."""
    return out.with_name(f"{out.stem}.{PREDICTIONS}")


def _write(
    out: Path, evaluated: Evaluated, about: Mapping[str, Any], begun: provenance.Sitting, keep: bool
) -> None:
    """The results with what they are of and what made them; `keep`: the predictions beside them."""
    if keep:
        write_predictions(_beside(out), evaluated.predictions)
    made = {"provenance": asdict(provenance.ended(begun))}
    atomic_write_text(out, json.dumps({**about, **as_json(evaluated.results), **made}, indent=2) + "\n")
    plain_console().print(f"written: {out}", highlight=False, soft_wrap=True, markup=False)


def _fill_in(folder: Path, evaluated: Evaluated) -> None:
    """Give a finished run that keeps no predictions those that were found now, if they are what it counted."""
    path = folder / PREDICTIONS
    if path.exists() or not (folder / RESULTS).exists():
        return
    recorded, now = read_results(folder).tasks, evaluated.results.tasks
    if any(recorded[task].accuracy != now[task].accuracy for task in recorded):
        plain_console().print(_OTHERWISE, highlight=False, soft_wrap=True)
        return
    with at_work_in(folder):
        provenance.begin(folder)
        write_predictions(path, evaluated.predictions)
    plain_console().print(f"written: {path}", highlight=False, soft_wrap=True, markup=False)


def _shown(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in options.items())


def _data(settings: PoolSettings, pool: Pool, classes: ClassNames) -> Data:
    """The pictures, whose labels must number the classes as the run's heads do.

    Raises:
        DataError: other classes, or another order.
    """
    tasks = open_tasks(settings)
    for task in tasks:
        check_head(task, pool.heads[task.name].classes)
        own = classes.get(task.name)
        if own is not None and task.classes is not None and tuple(own) != tuple(task.classes):
            index = next(i for i, (a, b) in enumerate(zip(own, task.classes, strict=True)) if a != b)
            raise DataError(
                f"Task {task.name}: label {index} of these pictures is '{task.classes[index]}', that of the run's head "
                f"is '{own[index]}'.\n  Name the folders as in the run's data, or give the run's words in the data's "
                f"order with suite.catalogue.{task.name}.classes=[...]."
            )
    return open_data(settings, tasks)


def _of_checkpoint(settings: EvaluateSettings, checkpoint: str) -> Evaluated:
    """One encoder in the place of the merged one, on the config's suite, heads and experts."""
    found = open_checkpoint(checkpoint)
    opened = open_run(settings)
    pool, data = opened.open()
    state = found.on(pool.base, opened.paths["base"]).image_encoder()
    settled(opened.settings, {"experts/the checkpoint": checkpoint})  # it sees its pictures as the pool does
    if settings.backbone.resize_positions:
        state = resized(state, pool.encoder)
    check_encoder(checkpoint, state, pool.base)
    named = replace(opened, name=Path(checkpoint).stem)
    routers = routers_of(opened, settings.routing, pool, data)
    return evaluate(named, Fixed(pool, state), pool, data, references_of(named, pool, data), routers)
