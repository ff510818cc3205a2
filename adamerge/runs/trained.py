"""A finished run's method, from what its folder keeps: config, what predicting needs, heads and class names.

A folder stands alone where the method says what predicting needs (`Method.kept`): neither base nor experts nor data are
opened then, and it may lie on another machine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adamerge.checkpoints import open_checkpoint, open_tensors, save_tensors
from adamerge.checkpoints.heads import heads_of_tensors, tensors_of_heads
from adamerge.errors import CheckpointError, ConfigError, PoolError, RunError
from adamerge.merging import Head, Pool
from adamerge.methods.base import Method
from adamerge.models.finished import FILE, open_finished
from adamerge.routing.joint import Joint
from adamerge.routing.router import Router
from adamerge.runs.backbones import backbone_of, settled
from adamerge.runs.class_names import with_stated_classes
from adamerge.runs.inputs import Inputs, splits_of
from adamerge.runs.routing import routers_of
from adamerge.runs.rules import rule_of
from adamerge.runs.run import Run, name_of
from adamerge.runs.scales import at_scale
from adamerge.runs.statistics import statistics_of
from adamerge.runs.suite_pool import open_heads, pool_with_heads
from adamerge.runs.weights import checkpoint_paths
from adamerge.settings import validate
from adamerge.settings.commands import TrainSettings
from adamerge.settings.components import described
from adamerge.tracking.results import read_results
from adamerge.tracking.run_record import RunRecord, read_lineage

_NEEDED = ("suite", "backbone", "checkpoints", "method", "rule", "trainer", "evaluation", "seed")
HEADS = "heads.safetensors"
ClassNames = dict[str, tuple[str, ...] | None]  # by task; None where only a head file knows the classes


def run_in(folder: Path) -> Run:
    """The run that a folder belongs to, with the weight files that it was made of.

    Raises:
        CheckpointError: weight files that are no more there.
        RunError: it is no run folder, or none of a run that can be evaluated, or its weight files have changed.
    """
    settings = settings_in(folder)
    paths = checkpoint_paths(settings)
    settings = with_stated_classes(settled(settings, paths), paths)
    inputs = Inputs(settings, paths, splits_of(settings))
    _refuse_other_weights(folder, inputs)
    return Run(settings, name_of(settings), RunRecord(folder).id, folder, inputs)


def settings_in(folder: Path) -> TrainSettings:
    """The settings of a run folder.

    Raises:
        RunError: it is no run folder, or none of a run that can be evaluated.
    """
    if not (folder / "config.yaml").exists():
        raise RunError(f"{folder} is no run folder: it has no config.yaml.")
    known = RunRecord(folder).config()  # refuses a damaged file
    if missing := [key for key in _NEEDED if key not in known]:
        raise RunError(
            f"{folder} holds no run of train or merge: its config.yaml has no {', '.join(missing)}."
        )
    try:
        return validate(known, TrainSettings)
    except ConfigError as error:
        raise RunError(
            f"{folder / 'config.yaml'} is not as this version of adamerge reads it.\n"
            f"  {error}\n  Run the command again, or use the version that made it."
        ) from error


def _refuse_other_weights(folder: Path, inputs: Inputs) -> None:
    """Raise a RunError where the weight files are not those that the run was made with."""
    lineage = read_lineage(folder)
    if lineage.data is None:
        return  # older than identities of whole files
    noted = {name: weights.identity for name, weights in lineage.uses.items()}
    changed = [name for name, identity in inputs.files.items() if noted.get(name, identity) != identity]
    if changed:
        places = "".join(f"\n  {name}: {inputs.paths[name]}" for name in changed)
        raise RunError(
            f"{folder} was made with other weights than those that are here now: {', '.join(changed)}.{places}\n"
            "  Put the weights back, or run the same command again: it makes a run of the new ones."
        )


def trained_method(run: Run, folder: Path, pool: Pool) -> Method:
    """The run's method with the parts that were trained."""
    rule = None
    if run.settings.choice is not None:
        choice = read_results(folder).choice
        assert choice is not None, "a finished run says what it chose"
        rule = rule_of(at_scale(run.settings, choice.chosen))
    method = run.build_on(run.ruled(pool, statistics_of(run, pool), rule))
    if method.state_dict():
        method.load_state_dict(open_checkpoint(folder / "state.safetensors").state)
    return method


def stands_alone(folder: Path) -> bool:
    """Whether the folder of a finished run holds all that predicting needs."""
    return (folder / FILE).exists() and (folder / HEADS).exists()


def load_alone(folder: Path) -> tuple[Run, Method]:
    """A finished run's method from its folder alone; where its weight files lay is only told.

    Raises:
        CheckpointError, RunError: a damaged file.
    """
    settings = settings_in(folder)
    backbone = backbone_of(settings.backbone)
    trained = folder / "state.safetensors"
    target, options = described(settings.method.model)
    method: Method = target.restore(
        open_finished(folder, backbone), open_tensors(trained) if trained.exists() else {}, **options
    )
    paths = {name: weights.path for name, weights in read_lineage(folder).uses.items()}
    inputs = Inputs(settings, paths, splits_of(settings))
    return Run(settings, name_of(settings), RunRecord(folder).id, folder, inputs), method.eval()


def load_without_data(folder: Path) -> tuple[Run, Method, ClassNames]:
    """A finished run's method and each task's class names, from the folder alone where it stands alone. The suite's
    pictures are neither needed nor opened, unless the run is from before runs kept their heads."""
    if stands_alone(folder) and (saved := read_heads(folder)) is not None:
        return *load_alone(folder), saved[1]
    run = run_in(folder)
    heads, classes = heads_of(run, folder)
    return run, trained_method(run, folder, pool_with_heads(run.settings, run.paths, heads)), classes


def router_alone(folder: Path, finished: Pool, name: str) -> Router:
    """A router of a finished run. Joint needs its folder alone, the others the weights that the run was made from, and
    SiM the suite's pictures once.

    Args:
        finished: the pool that the run predicts from.

    Raises:
        PoolError: weights that are not here.
    """
    if name == "joint":
        return Joint(finished.tasks)
    try:
        run = run_in(folder)
    except CheckpointError as error:
        raise PoolError(
            f"routing={name} needs the weights that the run was made from. {error}\n"
            "  Put them back where they were, or give routing=joint, which needs the run folder alone."
        ) from error
    pool = pool_with_heads(run.settings, run.paths, finished.heads)
    return routers_of(run, [name], pool)[name].router


def heads_of(run: Run, folder: Path) -> tuple[Mapping[str, Any], ClassNames]:
    """The heads that a finished run classifies with and the names of their rows; made anew for a run from before runs
    kept them."""
    if (saved := read_heads(folder)) is not None:
        return saved
    tasks = [*run.inputs.tasks, *run.inputs.unseen]
    heads = open_heads(run.settings, tasks, run.paths, run.files["base"])
    return heads, {task.name: task.classes for task in tasks}


def save_heads(folder: Path, heads: Mapping[str, Head], classes: ClassNames) -> None:
    """Write the heads that a model classifies with, the names of their rows beside them."""
    save_tensors(folder / HEADS, tensors_of_heads(heads), {"classes": json.dumps(classes), "format": "pt"})


def read_heads(folder: Path) -> tuple[dict[str, Head], ClassNames] | None:
    """The heads and class names by task; None where the run kept none.

    Raises:
        CheckpointError, RunError: a damaged file, or one of another origin.
    """
    from safetensors import safe_open

    path = folder / HEADS
    if not path.exists():
        return None
    heads = heads_of_tensors(open_checkpoint(path).state)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    try:
        classes = json.loads(metadata["classes"])
        return heads, {task: None if names is None else tuple(names) for task, names in classes.items()}
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise RunError(
            f"{path} does not name its classes.\n  Delete it: the heads are then made anew."
        ) from error
