"""Runs a StepModule with Lightning's Trainer: progress, journal, checkpoints, resume."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.utils.data import Dataset

from adamerge.errors import CheckpointError, ConfigError
from adamerge.tracking.journal import Journal
from adamerge.tracking.mirror import Mirror
from adamerge.training.adaptation import Adaptation
from adamerge.training.checkpointing import AtomicCheckpointIO, SaveLast, steps_done
from adamerge.training.guard import Guard
from adamerge.training.journaling import Watch, WriteJournal
from adamerge.training.step_module import StepModule, step_loader

_OURS = {
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "max_epochs": 1,
    "log_every_n_steps": 1,
}


def run_steps(
    module: StepModule,
    dataset: Dataset[Any],
    steps: int,
    *,
    folder: Path | None = None,
    trainer: Mapping[str, Any] | None = None,
    mirrors: Sequence[Mirror] = (),
    callbacks: list[pl.Callback] | None = None,
    checkpoint_every: int = 50,
    workers: int = 0,
    watch: Watch | None = None,
    guard: Guard | None = None,
) -> None:
    """Train `module` on dataset[0], ..., dataset[steps - 1].

    Args:
        folder: run folder. With one, each step is journaled, `checkpoints/last.ckpt` is kept, and a run that was
            interrupted goes on from there to the same result, bit by bit on the CPU.
        trainer: options of Lightning's Trainer.
        mirrors: where the journal is shown as well.
        checkpoint_every: steps between two checkpoints.
        workers: processes that load data; does not change the result.
        watch: evaluations while training, for the journal.
        guard: of an Adaptation: what it keeps is the result, and it may end the training before all steps are done.
    """
    # Before the journal and the checkpoint, which say what it found.
    callbacks = [*([] if guard is None else [guard]), *(callbacks or [])]
    plugins: list[Any] = []
    last = None
    if folder is not None:
        path = folder / "checkpoints" / "last.ckpt"
        callbacks += [
            WriteJournal(Journal(folder / "journal.jsonl"), mirrors, watch),
            SaveLast(path, checkpoint_every, steps),
        ]
        plugins.append(AtomicCheckpointIO())
        last = path if path.exists() else None
        if last is not None and steps_done(last) is None:
            raise CheckpointError(
                f"Cannot resume from {last}: it is damaged.\n  Delete it to start this run afresh."
            )
    _quiet()
    try:
        lightning = pl.Trainer(
            **{**(trainer or {}), **_OURS}, logger=False, callbacks=callbacks, plugins=plugins
        )
    except (ValueError, TypeError, ImportError, MisconfigurationException) as error:
        raise ConfigError(f"trainer: {error}") from error
    try:
        lightning.fit(module, step_loader(dataset, module, steps, workers), ckpt_path=last, weights_only=True)
    except (KeyError, EOFError) as error:
        if last is None or module.step:
            raise
        raise CheckpointError(
            f"Cannot resume from {last}: {error}.\n  Delete that file to start this run afresh."
        ) from error
    if guard is not None:
        assert isinstance(module, Adaptation)
        guard.put_back(module)


def _quiet() -> None:
    """Lightning's hints are about choices that are made here deliberately."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
