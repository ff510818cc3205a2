"""A run: its config, its identity, its folder, and how its pool and method are opened."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from omegaconf import DictConfig

from adamerge.commands.assemble import (
    Data,
    checkpoint_paths,
    corruption_of,
    fingerprints,
    open_data,
    open_suite_pool,
    open_tasks,
    pool_with_heads,
    settled,
)
from adamerge.errors import ConfigError
from adamerge.merging import Pool
from adamerge.methods import Method
from adamerge.models.start import with_start
from adamerge.rules import TaskArithmetic
from adamerge.settings import instantiate, run_id
from adamerge.tasks.task import check_head
from adamerge.tracking.recorded import Weights


@dataclass(frozen=True)
class Run:
    """A run's config, its name (the method's, or the rule's where nothing is trained), and where it writes.

    `paths` are the weight files, `files` the identities of their contents.
    """

    cfg: DictConfig
    name: str
    id: str
    folder: Path
    paths: dict[str, str]
    files: dict[str, str]

    @property
    def weights(self) -> dict[str, Weights]:
        """The weight files that the run reads."""
        return {name: Weights(path, self.files[name]) for name, path in self.paths.items()}

    def open(self) -> tuple[Pool, Data]:
        """The checked pool, before any rule, and the test split."""
        tasks = open_tasks(self.cfg)
        data = open_data(self.cfg, tasks)
        every = [*tasks, *open_tasks(self.cfg, unseen=True)]
        pool = open_suite_pool(self.cfg, every, self.paths, self.files)
        for task in every:
            check_head(task, pool.heads[task.name].classes, from_file=f"heads/{task.name}" in self.paths)
        return pool, data

    @property
    def arithmetic(self) -> TaskArithmetic:
        """Task arithmetic with the suite's customary coefficient."""
        prior = self.cfg.suite.get("prior")
        return TaskArithmetic() if prior is None else TaskArithmetic(prior)

    def build(self, pool: Pool) -> Method:
        """The method over the rule's pool, with the coefficients of `start` where the config names one.

        Whatever is drawn at random follows the seed.
        """
        cfg = self.cfg
        ruled = self._ruled(pool)
        model = cfg.method.model
        if "start" in self.paths:
            if ruled.by_task:
                raise ConfigError(
                    f"start: rule={cfg.rule.name} keeps one encoder per task; there is nothing to start."
                )
            ruled = with_start(ruled, Path(self.paths["start"]))
            if "start" in model:
                model = {**model, "start": None}
        torch.manual_seed(cfg.seed)
        method: Method = instantiate(model, ruled)
        return method.eval()

    def _ruled(self, pool: Pool) -> Pool:
        """The pool after the rule. A rule that ranks entries sees the task vectors in float32, also where they are kept
        in bfloat16: for that time the experts are opened once more."""
        if not self.cfg.rule.rule:
            return self.arithmetic(pool)
        rule = instantiate(self.cfg.rule.rule)
        kept = next(iter(pool.vectors.values())).dtype
        if kept == torch.float32 or not getattr(rule, "ranks", False):
            ruled: Pool = rule(pool)
            return ruled
        wide = pool_with_heads(self.cfg, self.paths, pool.heads, torch.float32)
        narrow: Pool = rule(replace(pool, vectors=wide.vectors), kept)
        return narrow


def open_run(cfg: DictConfig) -> Run:
    """The run's identity, from the config and the content of the weight files."""
    paths = checkpoint_paths(cfg)
    cfg = settled(cfg, paths)
    files = fingerprints(paths)
    identity = run_id(cfg, files, "train")
    name = cfg.rule.name if cfg.method.name == "static" else cfg.method.name
    corruption = corruption_of(cfg)
    suite = cfg.suite.name if corruption is None else f"{cfg.suite.name}-{corruption.name}"
    folder = Path(cfg.outputs) / (cfg.get("experiment_name") or suite) / name / identity
    return Run(cfg, name, identity, folder, paths, files)
