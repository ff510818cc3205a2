"""A run: its config, its identity, its folder, and how its pool and method are opened."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from omegaconf import DictConfig

from adamerge.errors import ConfigError
from adamerge.merging import Pool
from adamerge.methods.base import Method
from adamerge.models.start import with_start
from adamerge.rules.linear import TaskArithmetic
from adamerge.runs.inputs import Inputs, splits_of
from adamerge.runs.loading import (
    Data,
    checkpoint_paths,
    corruption_of,
    open_data,
    open_suite_pool,
    pool_with_heads,
    settled,
)
from adamerge.settings import instantiate
from adamerge.settings.components import component
from adamerge.tasks.task import check_head
from adamerge.tracking.recorded import Lineage

COMMAND = "train"  # of whatever has a pool, a rule and a method: `merge` is a `train` without steps


@dataclass(frozen=True)
class Run:
    """A run's config, its name (the method's, or the rule's where nothing is trained), and where it writes.

    `lineage` is what its folder notes of its inputs, which are opened when they are asked for.
    """

    cfg: DictConfig
    name: str
    id: str
    folder: Path
    inputs: Inputs

    @property
    def paths(self) -> dict[str, str]:
        """The weight files by name."""
        return self.inputs.paths

    @property
    def files(self) -> dict[str, str]:
        """The identities of their contents."""
        return self.inputs.files

    @property
    def lineage(self) -> Lineage:
        """What the run folder notes of the inputs."""
        return self.inputs.lineage(self.inputs.identity(COMMAND))

    def open(self) -> tuple[Pool, Data]:
        """The checked pool, before any rule, and the test split."""
        tasks = self.inputs.tasks
        data = open_data(self.cfg, tasks)
        every = [*tasks, *self.inputs.unseen]
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
        named = component(self.cfg.rule)
        if named is None:
            return self.arithmetic(pool)
        rule = instantiate(named)
        kept = next(iter(pool.vectors.values())).dtype
        if kept == torch.float32 or not getattr(rule, "ranks", False):
            ruled: Pool = rule(pool)
            return ruled
        wide = pool_with_heads(self.cfg, self.paths, pool.heads, torch.float32)
        narrow: Pool = rule(replace(pool, vectors=wide.vectors), kept)
        return narrow


def open_run(cfg: DictConfig) -> Run:
    """The run of a config, in the folder of its identity: of its settings, weights, pictures, labels and code."""
    paths = checkpoint_paths(cfg)
    cfg = settled(cfg, paths)
    inputs = Inputs(cfg, paths, splits_of(cfg))
    identity = inputs.identity(COMMAND).id
    corruption = corruption_of(cfg)
    suite = cfg.suite.name if corruption is None else f"{cfg.suite.name}-{corruption.name}"
    folder = Path(cfg.outputs) / (cfg.get("experiment_name") or suite) / name_of(cfg) / identity
    return Run(cfg, name_of(cfg), identity, folder, inputs)


def name_of(cfg: DictConfig) -> str:
    """The method's name, or the rule's where nothing is trained."""
    return str(cfg.rule.name if cfg.method.name == "static" else cfg.method.name)
