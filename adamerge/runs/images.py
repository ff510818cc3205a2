"""The suite's tasks, and the images and labels of their splits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from adamerge.cache_folder import cache_dir
from adamerge.picture_fit import Fit
from adamerge.runs.backbones import fit_for
from adamerge.settings import instantiate
from adamerge.settings.commands import PoolSettings
from adamerge.settings.sections import ShareSection, SuiteSection
from adamerge.tasks.corruptions import Corruption
from adamerge.tasks.images import ImageSet, Pictures
from adamerge.tasks.picture import READING
from adamerge.tasks.protocol import AdaptOn
from adamerge.tasks.subsets import Corrupted, Sample, Validation
from adamerge.tasks.task import Task, build_tasks, check


def open_tasks(settings: PoolSettings, unseen: bool = False) -> list[Task]:
    """The suite's tasks, or those that are evaluated without an expert."""
    names = settings.suite.unseen if unseen else settings.suite.tasks
    tasks = build_tasks(names, settings.suite.catalogue, instantiate)
    if settings.suite.validation:
        tasks = [replace(task, source=Validation(task.source), sizes={}) for task in tasks]
    if (limit := settings.suite.limit) is not None:
        tasks = [replace(task, source=Sample(task.source, limit), sizes={}) for task in tasks]
    return tasks


@dataclass(frozen=True)
class Data:
    """One split of the suite. The labels are kept apart from the images: only evaluation asks for them."""

    tasks: tuple[Task, ...]
    images: dict[str, ImageSet]
    labels: dict[str, Tensor | None]


def corruption_of(suite: SuiteSection) -> Corruption | None:
    """What is done to the suite's test pictures."""
    return None if suite.corruption is None else Corruption(suite.corruption, suite.severity, suite.strengths)


def suite_adapts_on(suite: SuiteSection) -> AdaptOn:
    """The images that the suite offers to adapt on."""
    given = suite.adapt_on
    return AdaptOn.of(given.model_dump() if isinstance(given, ShareSection) else given)


def suite_name(suite: SuiteSection) -> str:
    """The suite with its corruption, as it is reported: "mini", "mini, motion_blur 2"."""
    corruption = corruption_of(suite)
    parts = [suite.name, *([] if corruption is None else [str(corruption)])]
    parts += [] if suite.test_split == "test" else [f"split {suite.test_split}"]
    parts += ["validation"] if suite.validation else []
    parts += [f"{suite.limit} images"] if suite.limit else []
    cut = suite_adapts_on(suite)
    if cut.share is not None:  # another set of images is scored
        parts.append(f"unseen {1 - cut.share:.4g} of test" + (f", cut {cut.cut}" if cut.cut else ""))
    return ", ".join(parts)


def open_data(settings: PoolSettings, tasks: list[Task], split: str = "test") -> Data:
    """The images and labels of a split; the test images are corrupted where the suite says so."""
    fit = fit_for(settings.backbone)
    corruption = corruption_of(settings.suite) if split == "test" else None
    for task in tasks:
        check(task, split)
    keep = settings.suite.decode_cache
    images = {
        task.name: image_set(
            task.source.images(split),
            fit,
            corruption,
            kept_at(task, split, fit, corruption) if keep else None,
            task.name,
        )
        for task in tasks
    }
    labels = {task.name: task.source.labels(split) for task in tasks}
    as_tensors = {name: None if array is None else torch.as_tensor(array) for name, array in labels.items()}
    return Data(tuple(tasks), images, as_tensors)


def image_set(
    pictures: Pictures,
    fit: Fit,
    corruption: Corruption | None = None,
    kept: Path | None = None,
    task: str | None = None,
) -> ImageSet:
    """The pictures at the model's resolution, corrupted at it or before, as the corruption says."""
    if corruption is not None and corruption.at_source:
        return ImageSet(Corrupted(pictures, corruption), fit, None, kept, task)
    return ImageSet(pictures, fit, corruption, kept, task)


def kept_at(task: Task, split: str, fit: Fit, corruption: Corruption | None = None) -> Path:
    """Where a split's decoded pictures lie."""
    made_of = f"{task.source.identity(split)} {fit} {corruption} reading {READING}"
    return cache_dir() / "pixels" / hashlib.sha256(made_of.encode()).hexdigest()[:24]
