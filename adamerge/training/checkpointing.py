"""Checkpoints for resuming: saved atomically, loaded without running anything from the file."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from adamerge.files import write_atomically
from adamerge.training.step_module import StepModule


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's format, written to a temporary name, synced and renamed: a full disk or a kill leaves the last
    good checkpoint."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(Path(path)) as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        loaded: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
        return loaded


def steps_done(path: Path) -> int | None:
    """The steps that a checkpoint has behind it; None where there is none, or none that can be read."""
    try:
        return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["adamerge"]["step"])
    except (OSError, RuntimeError, KeyError, EOFError, UnpicklingError):
        return None


class SaveLast(pl.Callback):
    """Saves `path` every `every` steps and after the last one, be it earlier than planned."""

    def __init__(self, path: Path, every: int, steps: int) -> None:
        self.path = path
        self.every = every
        self.steps = steps

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, StepModule)
        if pl_module.step % self.every == 0 or pl_module.step == self.steps or pl_module.stopped:
            trainer.save_checkpoint(self.path)
