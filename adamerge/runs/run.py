"""A run: its settings, its identity, its folder, and how its pool and method are opened."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from adamerge.errors import ConfigError
from adamerge.evaluation.predicting import Passes
from adamerge.merging import Pool
from adamerge.merging.compact import kept_as
from adamerge.merging.task_vectors import Statistics
from adamerge.methods.base import Method
from adamerge.models.coefficient_files import with_start
from adamerge.rules.linear import TaskArithmetic
from adamerge.rules.rule import Rule
from adamerge.runs.backbones import device_of, settled
from adamerge.runs.class_names import check_rows, with_stated_classes
from adamerge.runs.images import Data, corruption_of, open_data
from adamerge.runs.inputs import Inputs, splits_of
from adamerge.runs.rules import (
    arithmetic,
    from_the_rule,
    refuse_pointless,
    rule_name,
    rule_of,
    starts_below,
    with_own_start,
)
from adamerge.runs.scales import refuse_choice
from adamerge.runs.suite_pool import open_suite_pool, pool_with_heads
from adamerge.runs.weights import checkpoint_paths
from adamerge.settings import instantiate
from adamerge.settings.commands import RunSettings
from adamerge.tasks.task import check_head
from adamerge.tracking.run_record import Lineage

COMMAND = "train"  # of whatever has a pool, a rule and a method: `merge` is a `train` without steps


@dataclass(frozen=True)
class Run:
    """A run's settings, its name (the method's, or the rule's where nothing is trained), and where it writes.

    `lineage` is what its folder notes of its inputs, which are opened when they are asked for.
    """

    settings: RunSettings
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
        data = open_data(self.settings, tasks)
        every = [*tasks, *self.inputs.unseen]
        pool = open_suite_pool(self.settings, every, self.paths, self.files)
        for task in every:
            check_head(task, pool.heads[task.name].classes, from_file=f"heads/{task.name}" in self.paths)
            check_rows(task, self.paths)
        return pool, data

    def encoders(self, *names: str) -> dict[str, Any]:
        """What the outputs of encoders depend on beside the images, as plain data that names an entry of the cache.

        Args:
            names: the weight files that they are made from.
        """
        settings = self.settings
        return {
            "backbone": settings.backbone.model_dump(),
            "dtype": settings.checkpoints.dtype,
            "files": {name: self.files[name] for name in names},
            **(
                {}
                if settings.evaluation.precision == "32-true"
                else {"precision": settings.evaluation.precision}
            ),
        }

    @property
    def passes(self) -> Passes:
        """How images pass through a model without being trained on."""
        settings = self.settings
        return {
            "device": device_of(settings.trainer),
            "batch_size": settings.evaluation.batch_size,
            "precision": settings.evaluation.precision,
        }

    @property
    def arithmetic(self) -> TaskArithmetic:
        """Task arithmetic with the suite's customary coefficient."""
        return arithmetic(self.settings)

    def build(self, pool: Pool, statistics: Statistics | None = None) -> Method:
        """The method over the rule's pool, with the coefficients of `start` where the config names one.

        Whatever is drawn at random follows the seed.

        Args:
            statistics: of unlabeled images, for a rule that needs them (`statistics_of`).
        """
        return self.build_on(self.ruled(pool, statistics))

    def build_on(self, ruled: Pool) -> Method:
        """The method over a pool that the rule has been applied to."""
        settings = self.settings
        model = settings.method.model
        if "start" in self.paths and not starts_below(settings):
            if ruled.by_task:
                raise ConfigError(
                    f"start: rule={settings.rule.name} keeps one encoder per task; there is nothing to start."
                )
            ruled = with_start(ruled, Path(self.paths["start"]), settings.origin)
            model = from_the_rule(model)
        torch.manual_seed(settings.seed)
        method: Method = instantiate(model, ruled)
        refuse_pointless(settings, rule_of(settings), trained=not method.frozen_encoder)
        return method.eval()

    def ruled(self, pool: Pool, statistics: Statistics | None = None, rule: Rule | None = None) -> Pool:
        """The pool after the rule. A rule that ranks entries sees the task vectors in float32, also where they are kept
        in bfloat16 or in few bits: for that time the experts are opened once more.

        Args:
            rule: another than the settings'.
        """
        rule = rule_of(self.settings) if rule is None else rule
        kept = kept_as(pool.vectors)
        origin = self.settings.origin
        if kept == torch.float32 or not rule.ranks:
            return rule(pool, None, origin, statistics)
        wide = pool_with_heads(self.settings, self.paths, pool.heads, torch.float32)
        return rule(replace(pool, vectors=wide.vectors), kept, origin, statistics)


def open_run(settings: RunSettings) -> Run:
    """The run of a config, in the folder of its identity: of its settings, weights, pictures, labels and code."""
    refuse_choice(settings)
    if settings.method.schedule is None:
        refuse_pointless(settings, rule_of(settings), trained=False)
    paths = checkpoint_paths(settings)
    settings = with_own_start(with_stated_classes(settled(settings, paths), paths))
    inputs = Inputs(settings, paths, splits_of(settings))
    identity = inputs.identity(COMMAND).id
    return Run(settings, name_of(settings), identity, folder_of(settings, identity), inputs)


def folder_of(settings: RunSettings, identity: str) -> Path:
    """The folder of a run's identity."""
    corruption = corruption_of(settings.suite)
    suite = settings.suite.name if corruption is None else f"{settings.suite.name}-{corruption.name}"
    return Path(settings.outputs) / (settings.experiment_name or suite) / name_of(settings) / identity


def name_of(settings: RunSettings) -> str:
    """The method's name, or the rule's with its post-rules' where nothing is trained."""
    method = settings.method
    merges = method.schedule is None and method.name in ("static", settings.rule.name)
    return rule_name(settings) if merges else method.name
