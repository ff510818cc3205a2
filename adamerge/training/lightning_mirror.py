"""Any of Lightning's loggers (CSV, TensorBoard, MLflow, ...) as a mirror of the run folder."""

from __future__ import annotations

from pathlib import Path

from pytorch_lightning.loggers import Logger

from adamerge.tracking.journal import Record
from adamerge.tracking.mirror import Mirror
from adamerge.tracking.run_record import RunRecord, scalars


def as_mirror(folder: Path, made: Logger | Mirror) -> Mirror:
    """A mirror of the run folder: what was made, or around it where it is one of Lightning's loggers."""
    return LightningMirror(folder, made) if isinstance(made, Logger) else made


class LightningMirror:
    """Shows the config as hyperparameters, the journal as metrics, the results as metrics of the last step."""

    def __init__(self, folder: Path, logger: Logger) -> None:
        self.recorded = RunRecord(folder)
        self.logger = logger
        self._last = 0

    def start(self) -> None:
        self.logger.log_hyperparams({**self.recorded.config(), **self.recorded.names()})

    def step(self, record: Record) -> None:
        self._last = record["step"]
        known = {key: value for key, value in record.items() if key != "step" and value is not None}
        self.logger.log_metrics(known, step=self._last)

    def finish(self) -> None:
        if results := self.recorded.results():
            self.logger.log_metrics(scalars(results), step=self._last)
        self.logger.save()
        self.logger.finalize("success" if self.recorded.state() == "finished" else "failed")
