"""Writes one line per step into the run's journal: losses, seconds (and how many of them loading took), peak memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch

from adamerge.memory import peak_memory_bytes
from adamerge.tracking.journal import Journal
from adamerge.tracking.mirror import Mirror
from adamerge.training.step_module import StepModule


@contextmanager
def unnoticed(module: pl.LightningModule) -> Iterator[None]:
    """Inside the block the model may be looked at: random numbers and the modules' modes are put back, and nothing has
    a gradient."""
    modes = {part: part.training for part in module.modules()}
    devices = [module.device] if module.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.no_grad():
        yield
    for part, mode in modes.items():
        part.training = mode


@dataclass(frozen=True)
class Watch:
    """Evaluations while training. They are looked at, never chosen by, and leave no trace in the training.

    Attributes:
        look: the numbers to journal, of the method as it is.
        every: steps between two of them; the first and the last step have one too.
        steps: of the whole training.
    """

    look: Callable[[], dict[str, float | None]]
    every: int
    steps: int

    def __call__(self, module: StepModule) -> dict[str, float | None]:
        """Nothing at a step without an evaluation."""
        if module.step % self.every and module.step not in (1, self.steps) and not module.stopped:
            return {}
        with unnoticed(module):
            return self.look()


class WriteJournal(pl.Callback):
    """Keeps the journal in step with the checkpoint: what a resumed run repeats is cut off first.

    Mirrors are shown every line, those from before an interruption too.

    Args:
        watch: evaluations while training; the seconds of a step are without them.
    """

    def __init__(self, journal: Journal, mirrors: Sequence[Mirror] = (), watch: Watch | None = None) -> None:
        self.journal = journal
        self.mirrors = mirrors
        self.watch = watch
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
            **({} if self.watch is None else self.watch(pl_module)),
        }
        self.journal.append(record)
        for mirror in self.mirrors:
            mirror.step(record)
        self._started = now if self.watch is None else time.perf_counter()
