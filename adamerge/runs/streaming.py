"""`merge evaluate=false`: from weight files to a run folder that predicts, without data, a few tensors in memory."""

from __future__ import annotations

from pathlib import Path

import torch

from adamerge.checkpoints.saving import sidecar
from adamerge.console import plain_console
from adamerge.errors import CheckpointError, ConfigError
from adamerge.merging import Pool
from adamerge.models.finished import save_finished
from adamerge.models.slices import Slices, open_vectors
from adamerge.rules.rule import Rule
from adamerge.runs.backbones import backbone_of, model_of, pictures_for, settled
from adamerge.runs.class_names import with_stated_classes
from adamerge.runs.folder import at_work_in, clear, start_folder
from adamerge.runs.known_heads import heads_without_pictures
from adamerge.runs.merging import write_merged
from adamerge.runs.rules import refuse_pointless, rule_name, rule_of
from adamerge.runs.run import folder_of
from adamerge.runs.suite_pool import sources
from adamerge.runs.trained import save_heads
from adamerge.runs.weights import checkpoint_paths, fingerprints
from adamerge.settings import identify
from adamerge.settings.commands import RunSettings
from adamerge.tracking.run_record import Lineage, Weights

FILE = "merged.safetensors"


def merge_files(settings: RunSettings) -> Path:
    """Write a static merge into the run folder of its settings and weights, and say so; a finished one is said again.

    The folder stands alone as an evaluated one does, with the heads that are known without pictures. As no picture is
    read, the run's id counts none: evaluating the same merge is a run of its own.

    Returns:
        The merged encoder's file.

    Raises:
        ConfigError: settings of what is no static merge to one encoder.
        PoolError, CheckpointError: as for a pool.
    """
    rule = _static(settings)
    paths = _paths(settings)
    settings = with_stated_classes(settled(settings, paths), paths)
    files = fingerprints(paths)
    identity = identify(settings, "merge", files, {})
    folder = folder_of(settings, identity.id)
    path = folder / FILE
    with at_work_in(folder):
        if settings.rerun:
            clear(folder)
        how, note = "was there already", ""
        if not sidecar(path).exists():  # it is written last
            uses = {name: Weights(place, files[name]) for name, place in paths.items()}
            code = dict(identity.code)
            lineage = Lineage(uses, data={}, code=code, settings=identity.settings, origin=settings.origin)
            start_folder(settings, folder, lineage)
            note = _write_heads(folder, settings, paths, files["base"])
            how = _write(path, settings, rule, paths)
    plain_console().print(
        f"{path} {how}. Nothing was predicted (evaluate=false), so there are no results; the same command without it "
        f"evaluates.{note}",
        highlight=False,
        soft_wrap=True,
    )
    return path


def _paths(settings: RunSettings) -> dict[str, str]:
    """The weight files; without those that only heads need where these are not here."""
    try:
        return checkpoint_paths(settings)
    except CheckpointError:
        checkpoints = settings.checkpoints.model_copy(update={"heads": None, "text": None})
        return checkpoint_paths(settings.model_copy(update={"checkpoints": checkpoints}))


def _write_heads(folder: Path, settings: RunSettings, paths: dict[str, str], base_id: str) -> str:
    """Write what predicting needs beside the merged encoder; gives a sentence on what is not known."""
    known = heads_without_pictures(settings, paths, base_id)
    if known.heads:
        encoder = backbone_of(settings.backbone).build()
        names = (*settings.suite.tasks, *settings.suite.irrelevant)
        unseen = tuple(task for task in settings.suite.unseen if task in known.heads)
        save_finished(folder, Pool(encoder, {}, {}, names, known.heads, unseen, finished=True))
        save_heads(folder, known.heads, known.classes)
    if not known.missing:
        return ""
    return f" predict and export are without heads here: {known.missing}."


def _static(settings: RunSettings) -> Rule:
    """The rule, of settings that only merge."""
    rule = rule_of(settings)
    if settings.routing:
        raise ConfigError(
            "evaluate=false: routing=... is of an evaluation, and this merge has none.\n  Leave out one of the two."
        )
    if settings.method.schedule is not None:
        raise ConfigError(
            f"evaluate=false: method={settings.method.name} is trained on images; only a static merge goes without.\n"
            "  Leave out method=..., or evaluate=false."
        )
    if settings.choice is not None:
        raise ConfigError(
            f"evaluate=false: choose={settings.choice.by} judges merges on pictures, and this merge opens none.\n"
            "  Leave out one of the two, or give the scale: rule.scale=<number>."
        )
    if settings.start is not None:
        raise ConfigError(
            "evaluate=false: start=... is not read by a merge without evaluation.\n  Leave out one of the two."
        )
    if rule.gives == "experts":
        raise ConfigError(
            f"evaluate=false: rule={settings.rule.name} keeps one encoder per task; there is no merged one to write.\n"
            "  Choose a rule that merges (task_arithmetic, ties, ...), or leave out evaluate=false."
        )
    if rule.needs != "nothing":
        raise ConfigError(
            f"evaluate=false: rule={rule_name(settings)} learns from {rule.needs}, and this merge opens none.\n"
            "  Leave out evaluate=false: the evaluated merge writes merged.safetensors too."
        )
    refuse_pointless(settings, rule, trained=False)
    return rule


def _write(path: Path, settings: RunSettings, rule: Rule, paths: dict[str, str]) -> str:
    kept: torch.dtype = getattr(torch, settings.checkpoints.dtype)
    vectors = open_vectors(
        *sources(settings, paths),
        model_of(settings.backbone),
        torch.float32 if rule.ranks else kept,
        pictures_for(settings.backbone),
        settings.backbone.resize_positions,
    )
    write_merged(path, rule, vectors, kept, settings.origin)
    read = "tensor by tensor" if isinstance(vectors, Slices) else "from experts in memory"
    return f"was written {read}: {rule_name(settings)} of {len(vectors.names)} experts"
