"""`evaluate run=<folder>` or `evaluate checkpoint=<file>`: accuracy and agreement, without adapting."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from adamerge.checkpoints import open_checkpoint
from adamerge.commands.assemble import checkpoint_paths, open_data, open_suite_pool, open_tasks
from adamerge.commands.pipeline import Run, evaluate, load_method, open_run
from adamerge.errors import ConfigError
from adamerge.merging import Pool
from adamerge.methods import Method
from adamerge.models.pool import check_encoder
from adamerge.report.table import results_table
from adamerge.settings import validate


class _Fixed(Method):
    """One given encoder."""

    def __init__(self, pool: Pool, state: dict) -> None:  # type: ignore[type-arg]
        super().__init__(pool)
        self.state = state

    def merge(self, task: str | None = None) -> dict:  # type: ignore[type-arg]
        return self.state


def run(cfg: DictConfig) -> None:
    validate(cfg)
    if (cfg.run is None) == (cfg.checkpoint is None):
        raise ConfigError("evaluate needs one of run=<run folder> and checkpoint=<file>.")
    console = Console()
    if cfg.run is not None:
        found, method, data, opened, pool = load_method(Path(cfg.run))
        results = evaluate(opened, method, pool, data)
    else:
        results = _evaluate_checkpoint(cfg)
    console.print(results_table(results))


def _evaluate_checkpoint(cfg: DictConfig):  # type: ignore[no-untyped-def]
    cfg.method = {"name": Path(cfg.checkpoint).stem, "schedule": None}
    tasks = open_tasks(cfg)
    opened: Run = open_run(cfg, "evaluate")
    data = open_data(cfg, tasks)
    pool = open_suite_pool(cfg, tasks, checkpoint_paths(cfg), opened.files)
    state = open_checkpoint(cfg.checkpoint).image_encoder()
    check_encoder(cfg.checkpoint, state, pool.base)
    return evaluate(opened, _Fixed(replace(pool), {**pool.base, **state}), pool, data)
