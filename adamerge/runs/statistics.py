"""What a run's rule learns of unlabeled images: statistics of one pass of each expert, kept on disk by content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from adamerge.cache_folder import cache_dir
from adamerge.checkpoints.cached import cached_file
from adamerge.errors import ConfigError
from adamerge.merging import Pool
from adamerge.progress import image_progress
from adamerge.runs.images import Data, corruption_of, open_data
from adamerge.runs.protocol import unlabeled
from adamerge.runs.rules import rule_images, rule_name, rule_of, rule_sees
from adamerge.runs.run import Run
from adamerge.statistics.grams import collect_grams, refuse_missing
from adamerge.tasks.images import ImageSet
from adamerge.tasks.overlap import refuse_overlap


@dataclass(frozen=True)
class GramFiles:
    """Statistics (`adamerge.merging.task_vectors.Statistics`) that stay in a file for each expert."""

    files: Mapping[str, Path]

    def gram(self, expert: str, key: str) -> Tensor | None:
        from safetensors import safe_open

        with safe_open(self.files[expert], framework="pt") as file:
            tensor: Tensor | None = file.get_tensor(key) if key in file.keys() else None  # noqa: SIM118
        return tensor


def statistics_of(run: Run, pool: Pool, data: Data | None = None) -> GramFiles | None:
    """The statistics that the run's rule needs; None where it needs none.

    Args:
        pool: the experts, before any rule.
        data: the test split; opened where it is not given and the rule needs images.

    Raises:
        ConfigError: a rule that needs labels, of which there are no statistics.
        DataError: no training pictures, or test pictures among them.
        PoolError: an expert without a task, so without images.
    """
    on = rule_sees(run.settings)
    if on is None:
        return None
    if rule_of(run.settings).needs == "labels":
        raise ConfigError(
            f"rule={rule_name(run.settings)} needs labels, and no statistics here are of labels."
        )
    data = open_data(run.settings, run.inputs.tasks) if data is None else data
    images = unlabeled(run, data, on, rule_images(run.settings)).images
    refuse_missing(pool.names, images)
    if on.split != "test" and not run.settings.suite.allow_overlap and not corruption_of(run.settings.suite):
        for task, seen in images.items():
            refuse_overlap(task, seen, data.images[task])
    return GramFiles(_collected(run, pool, images))


def _collected(run: Run, pool: Pool, images: Mapping[str, ImageSet]) -> dict[str, Path]:
    found = {}
    passes = {**run.passes, "batch_size": min(run.passes["batch_size"], 64)}
    with image_progress("Statistics of what enters each layer", images) as progress:
        for name in pool.names:
            seen = images[name]
            made_from: dict[str, Any] = {
                "kind": "gram matrices",
                "images": seen.digest(),
                **run.encoders("base", f"experts/{name}"),
            }
            make = partial(_collect, pool, name, seen, progress=progress, **passes)
            found[name] = cached_file(cache_dir() / "statistics", made_from, make)
    return found


def _collect(pool: Pool, name: str, images: ImageSet, **passes: Any) -> dict[str, Tensor]:
    return collect_grams(pool.encoder, pool.expert(name), images, **passes)
