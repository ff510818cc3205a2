"""The checked pool of a suite: base, experts and heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from adamerge.cache_folder import cache_dir
from adamerge.checkpoints.addresses import RANDOM
from adamerge.checkpoints.cached import cached
from adamerge.merging import Pool
from adamerge.models.blocks import recompute_blocks
from adamerge.models.open_pool import open_pool
from adamerge.models.pretrained import RandomExperts, build_heads, pretrained_state
from adamerge.runs.backbones import model_of, pictures_for
from adamerge.runs.probing import from_pictures, picture_heads
from adamerge.runs.weights import fingerprints
from adamerge.settings.commands import PoolSettings
from adamerge.tasks.task import Task


def open_heads(
    settings: PoolSettings, tasks: list[Task], paths: Mapping[str, str], base_id: str
) -> dict[str, Any]:
    """Head files where the config names them, else heads of the training pictures or of prompts (cached on disk)."""
    if from_pictures(settings):
        return picture_heads(settings, tasks, paths["base"], base_id)
    given = {name.removeprefix("heads/"): path for name, path in paths.items() if name.startswith("heads/")}
    if given:
        return given
    model = model_of(settings.backbone)
    prompts = {task.name: task.prompts() for task in tasks}

    source = "text" if "text" in paths else "base"
    tower_id = fingerprints({source: paths[source]})[source] if source == "text" else base_id

    def make() -> dict[str, Tensor]:
        return build_heads(pretrained_state(paths[source], model), model, prompts, settings.download)

    # One file for the suite: a head is small, and every run of the suite needs all of them.
    made_from = {"base": tower_id, "model": model, "prompts": prompts, "kind": "zero-shot heads"}
    return cached(cache_dir() / "heads", made_from, make)


def open_suite_pool(
    settings: PoolSettings, tasks: list[Task], paths: Mapping[str, str], ids: Mapping[str, str]
) -> Pool:
    return pool_with_heads(settings, paths, open_heads(settings, tasks, paths, ids["base"]))


def sources(settings: PoolSettings, paths: Mapping[str, str]) -> tuple[Any, Mapping[str, Any]]:
    """(the base, the experts by name), as files or, where the config says random, as tensors."""
    base: Any = paths["base"]
    experts: Mapping[str, Any] = {
        task: paths[f"experts/{task}"] for task in [*settings.suite.tasks, *settings.suite.irrelevant]
    }
    if base.startswith(RANDOM):
        base = pretrained_state(base, model_of(settings.backbone))
        experts = RandomExperts(base, experts)
    return base, experts


def pool_with_heads(
    settings: PoolSettings,
    paths: Mapping[str, str],
    heads: Mapping[str, Any],
    dtype: torch.dtype | None = None,
) -> Pool:
    """The checked pool of the suite's tasks with these heads; the tasks' data are not looked at.

    `dtype` is that of the task vectors, where it is another than the config's.
    """
    base, experts = sources(settings, paths)
    dtype = dtype or getattr(torch, settings.checkpoints.dtype)
    pool = open_pool(
        base,
        experts,
        heads,
        backbone=model_of(settings.backbone),
        dtype=dtype,
        without_task=settings.suite.irrelevant,
        pictures=pictures_for(settings.backbone),
        resize_positions=settings.backbone.resize_positions,
        normalize=settings.checkpoints.normalize,
    )
    if settings.activation_checkpointing:
        recompute_blocks(pool.encoder)
    return pool
