"""One task's data: there, of one length, decodable, named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from adamerge.diagnosis.findings import Finding
from adamerge.settings import instantiate
from adamerge.tasks.images import resize_and_crop
from adamerge.tasks.task import Task, build_tasks, check

_DECODED = 5  # pictures of a task that are tried, from the first to the last


def task_data(cfg: DictConfig, name: str, size: int) -> Iterator[Finding]:
    """Open a task's test split, check names, labels and pictures against each other, and decode a few pictures."""
    what = f"data {name}"
    catalogue: Any = OmegaConf.to_container(cfg.suite.catalogue, resolve=True)
    (task,) = build_tasks([name], catalogue, instantiate)
    check(task, "test")
    pictures, labels = task.source.images("test"), task.source.labels("test")
    chosen = np.unique(np.linspace(0, len(pictures) - 1, _DECODED).astype(int))
    for index in chosen.tolist():
        resize_and_crop(pictures[index], size)
    text = f"{len(pictures):,} pictures ({len(chosen)} decoded), {_classes(task, labels)}"
    if cfg.checkpoints.heads is None:
        task.prompts()  # without class names there would be no head
    if labels is None:
        text += "; without labels there is an agreement with the expert, but no accuracy"
        yield Finding("ok", what, text)
    elif task.classes is not None and (absent := len(task.classes) - len(np.unique(labels))):
        advice = "Fine for a sample; else look at the folders or labels."
        yield Finding("warning", what, f"{text}, {absent} of which do not occur", advice)
    else:
        yield Finding("ok", what, text)


def _classes(task: Task, labels: NDArray[np.int64] | None) -> str:
    if task.classes is not None:
        return f"{len(task.classes)} classes"
    return "classes not named" if labels is None else f"{len(np.unique(labels))} classes, not named"
