"""Writes one line per step into the run's journal: losses, seconds (and how many of them loading took), peak memory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl

from adamerge.memory import peak_memory_bytes
from adamerge.tracking.journal import Journal
from adamerge.tracking.mirror import Mirror
from adamerge.training.steps import StepModule


class WriteJournal(pl.Callback):
    """Keeps the journal in step with the checkpoint: what a resumed run repeats is cut off first.

    Mirrors are shown every line, those from before an interruption too.
    """

    def __init__(self, journal: Journal, mirrors: Sequence[Mirror] = ()) -> None:
        self.journal = journal
        self.mirrors = mirrors
        self._started = 0.0
        self._loaded = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, StepModule)
        self.journal.truncate_after(pl_module.step - 1)
        for mirror in self.mirrors:
            for record in self.journal.read():
                mirror.step(record)
        self._started = time.perf_counter()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._loaded = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, StepModule)
        now = time.perf_counter()
        memory = peak_memory_bytes(pl_module.device)
        record = {
            **pl_module.record,
            "seconds": round(now - self._started, 6),
            # From the end of the step before to the batch on the device: reading and decoding, or waiting for it;
            # now and then also the checkpoint of the step before.
            "seconds_loading": round(self._loaded - self._started, 6),
            "peak_memory_bytes": memory,
        }
        self.journal.append(record)
        for mirror in self.mirrors:
            mirror.step(record)
        self._started = now
