"""A run folder: its config is written first, then its training goes on from where it was."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from torch.utils.data import Dataset

from adamerge.checkpoints.saving import sidecar
from adamerge.errors import ConfigError
from adamerge.files import atomic_write_text, why_not_writable
from adamerge.runs.inputs import told_apart
from adamerge.settings.commands import PoolSettings, as_yaml
from adamerge.tracking import predictions, provenance
from adamerge.tracking.journal import Journal
from adamerge.tracking.lock import holder, locked
from adamerge.tracking.mirror import Mirror
from adamerge.tracking.run_record import Lineage, RunRecord, read_lineage, write_lineage
from adamerge.training.guard import Guard
from adamerge.training.journaling import Watch
from adamerge.training.run_steps import run_steps
from adamerge.training.step_module import StepModule

# What a run makes, results first: without them the folder is no finished run any more.
_MADE = (
    *("results.json", "checkpoints", "journal.jsonl", "state.safetensors", "merged.safetensors"),
    *("heads.safetensors", "coefficients.json", "representations.json", "figures", "error.txt"),
    *("preset.json", "evaluations", "inference.safetensors", "references.safetensors"),
    predictions.FILE,
    "routing.safetensors",
    provenance.FILE,
)


@contextmanager
def at_work_in(folder: Path) -> Iterator[None]:
    """Around the work in a run folder, which is made where it is not there, and is no other process's meanwhile.

    Raises:
        ConfigError: the folder cannot be made or written into.
        RunError: another process works in it.
    """
    if why := why_not_writable(folder):
        raise ConfigError(
            f"outputs: the run folder {folder} cannot be written: {why}.\n"
            "  Give outputs=<folder>, or set ADAMERGE_OUTPUTS, to a folder that can be written."
        )
    with locked(folder), provenance.ending(folder):
        yield


def start_folder(settings: PoolSettings, folder: Path, lineage: Lineage) -> None:
    """Write into the folder the resolved config, what the run reads, and what makes it."""
    atomic_write_text(folder / "config.yaml", as_yaml(settings))
    write_lineage(folder, lineage)
    provenance.begin(folder)


def rename(folder: Path, name: str) -> None:
    """Call a finished run otherwise in tables: nothing else depends on its name."""
    content = RunRecord(folder).config()
    if content.get("name") != name:
        text = yaml.safe_dump(content | {"name": name}, sort_keys=False, allow_unicode=True)
        atomic_write_text(folder / "config.yaml", text)


def clear(folder: Path) -> None:
    """Remove what an earlier run of the same identity made."""
    for name in _MADE:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        for file in (path, sidecar(path)):
            file.unlink(missing_ok=True)


def relatives(folder: Path, lineage: Lineage) -> list[str]:
    """A line for each run of the same settings on other inputs: its numbers are not this run's."""
    lines = []
    for other in sorted(folder.parent.glob("*/lineage.json")):
        theirs = read_lineage(other.parent)
        if other.parent == folder or not lineage.settings or theirs.settings != lineage.settings:
            continue
        if apart := told_apart(lineage, theirs):
            lines.append(f"{_state(other.parent)} on {'; '.join(apart)}: {other.parent} is left as it is")
    return lines


def _state(folder: Path) -> str:
    if (folder / "results.json").exists():
        return "The same command has finished"
    steps = Journal(folder / "journal.jsonl").read()
    at = f" after {len(steps)} steps" if steps else ""
    running = holder(folder)
    return (
        f"The same command was interrupted{at}" if running is None else f"The same command runs ({running})"
    )


def train_in(
    folder: Path,
    settings: PoolSettings,
    module: StepModule,
    data: Dataset[Any],
    steps: int,
    mirrors: Sequence[Mirror],
    watch: Watch | None = None,
    guard: Guard | None = None,
) -> None:
    """Train with the config's trainer and checkpoints."""
    run_steps(
        module,
        data,
        steps,
        folder=folder,
        trainer=settings.trainer.options(),
        mirrors=mirrors,
        checkpoint_every=settings.checkpoint_every,
        workers=settings.workers,
        watch=watch,
        guard=guard,
    )
