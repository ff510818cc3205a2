"""`evaluate run=<folder>` or `evaluate checkpoint=<file>`: accuracy and agreement, without adapting."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from adamerge.checkpoints import open_checkpoint
from adamerge.commands.pipeline import evaluate, load_method
from adamerge.commands.run import open_run
from adamerge.errors import ConfigError
from adamerge.methods import Fixed
from adamerge.models.pool import check_encoder
from adamerge.models.positions import resized
from adamerge.report.table import results_table
from adamerge.settings import validate
from adamerge.tracking.results import Results


def run(cfg: DictConfig) -> None:
    validate(cfg)
    if (cfg.run is None) == (cfg.checkpoint is None):
        raise ConfigError("evaluate needs one of run=<run folder> and checkpoint=<file>.")
    results = _of_run(Path(cfg.run)) if cfg.run is not None else _of_checkpoint(cfg)
    Console().print(results_table(results))


def _of_run(folder: Path) -> Results:
    run, method, pool, data = load_method(folder)
    return evaluate(run, method, pool, data)


def _of_checkpoint(cfg: DictConfig) -> Results:
    """One encoder in the place of the merged one, on the config's suite, heads and experts."""
    state = open_checkpoint(cfg.checkpoint).image_encoder()
    opened = open_run(cfg)
    pool, data = opened.open()
    if cfg.backbone.get("resize_positions"):
        state = resized(state, pool.encoder)
    check_encoder(cfg.checkpoint, state, pool.base)
    named = replace(opened, name=Path(cfg.checkpoint).stem)
    return evaluate(named, Fixed(pool, state), pool, data)
