"""Streams as they come: the order in which a task's images arrive, which is seldom independent of their classes.

Labels serve to build the order and nothing else: what leaves this file are indices of images. The regimes and their
constants are those of StatA (arXiv 2501.03729): few classes per batch, Dirichlet shares over time, classes one after
another.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adamerge.errors import ConfigError, DataError

Kind = Literal["independent", "few_classes", "dirichlet", "class_by_class"]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Order:
    """How a stream is ordered.

    Attributes:
        kind: "independent" of the classes; "few_classes" in each batch, drawn anew for each; "dirichlet": each class
            is spread over time slots by shares drawn from a Dirichlet distribution; "class_by_class".
        classes: the least and the most classes in a batch, for few_classes.
        gamma: concentration of the Dirichlet distribution; the smaller, the more a class comes all at once.
        slots: time slots; as many as the task has classes by default.
        mixed_tasks: a step's batch is drawn from all tasks together, each image from any task alike. It has as many
            images as the others have of one task, and a task may have none in it.
    """

    kind: Kind = "independent"
    classes: tuple[int, int] | None = None
    gamma: float | None = None
    slots: int | None = None
    mixed_tasks: bool = False

    def __post_init__(self) -> None:
        if self.kind == "few_classes" and (
            self.classes is None or not 0 < self.classes[0] <= self.classes[1]
        ):
            raise ConfigError(f"stream.classes: expected [least, most], e.g. [1, 4] (got {self.classes}).")
        if self.kind == "dirichlet" and self.gamma is None:
            raise ConfigError("stream.gamma has no value; expected e.g. 0.1.")

    def __str__(self) -> str:
        slots = "" if self.slots is None else f" in {self.slots} slots"
        words = {
            "independent": "" if self.mixed_tasks else "independent",
            "few_classes": "{} to {} classes".format(*self.classes or (0, 0)),
            "dirichlet": f"Dirichlet {self.gamma}{slots}",
            "class_by_class": "class by class",
        }[self.kind]
        return ", ".join(part for part in (words, "tasks mixed" if self.mixed_tasks else "") if part)


@dataclass(frozen=True)
class Plan:
    """Which of a task's images each step takes.

    Attributes:
        walk: int64, the indices of all steps in a row.
        starts: (steps + 1,) where each step begins in it.
    """

    walk: Tensor
    starts: Tensor

    def __getitem__(self, step: int) -> Tensor:
        return self.walk[self.starts[step] : self.starts[step + 1]]


def plans(
    order: Order,
    sizes: Mapping[str, int],
    labels: Mapping[str, Tensor | None],
    *,
    per_task: int,
    steps: int | None,
    seed: int,
    feed: str,
) -> dict[str, Plan]:
    """Every task's plan; a pure function of the arguments.

    Args:
        sizes: number of images by task.
        labels: classes (n,) by task; needed by every order but "independent".
        per_task: images of one task in a step; of all tasks together where they are mixed.
        feed: "fixed" shows the first step's images in every step. An order in time is a walk, epoch after epoch,
            whatever else the feed says; batches of few classes are drawn anew in every step.

    Raises:
        DataError: a task without labels.
        ConfigError: a feed that contradicts the order.
    """
    if feed == "fixed" and order.mixed_tasks:
        raise ConfigError("stream: feed 'fixed' shows each task the same images; it cannot mix the tasks.")
    if feed == "once" or steps is None:
        raise ConfigError(
            "stream: feed 'once' has an order of its own, task after task; choose another method."
        )
    shares = np.full((steps, len(sizes)), per_task)
    if order.mixed_tasks:
        rng = np.random.default_rng(zlib.crc32(f"{seed}/{order}".encode()))
        shares = rng.multinomial(per_task, [1 / len(sizes)] * len(sizes), size=steps)
    found = {}
    for column, (task, total) in enumerate(sizes.items()):
        classes = _classes(task, order, labels.get(task))
        counts = np.minimum(shares[:, column], total)
        rows = _rows(order, total, classes, counts, f"{seed}/{task}", feed)
        starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
        found[task] = Plan(torch.from_numpy(np.concatenate(rows)), torch.from_numpy(starts))
    return found


def _classes(task: str, order: Order, labels: Tensor | None) -> Indices | None:
    if order.kind == "independent":
        return None
    if labels is None:
        raise DataError(
            f"stream: the order '{order}' is built from labels, and task '{task}' has none.\n"
            "  Choose stream=independent or stream=mixed_tasks."
        )
    return labels.numpy()


def _rows(
    order: Order, total: int, classes: Indices | None, counts: Indices, key: str, feed: str
) -> list[Indices]:
    """The indices of each step."""

    def rng(number: int) -> np.random.Generator:
        return np.random.default_rng(zlib.crc32(f"{key}/{order}/{number}".encode()))

    if feed == "fixed":
        first = _rows(order, total, classes, counts[:1], key, "persistent")[0]
        return [first] * len(counts)
    if order.kind == "few_classes":
        assert classes is not None
        assert order.classes is not None
        return [few_classes(classes, int(n), order.classes, rng(step)) for step, n in enumerate(counts)]
    if order.kind == "independent" and feed == "resample":
        return [rng(step).permutation(total)[:n] for step, n in enumerate(counts)]
    epochs = range(-(-int(counts.sum()) // total))
    one = feed == "cycle_cached"  # the first epoch's order, again and again
    walk = np.concatenate([_epoch(order, total, classes, rng(0 if one else epoch)) for epoch in epochs])
    return np.split(walk[: counts.sum()], np.cumsum(counts)[:-1])


def _epoch(order: Order, total: int, classes: Indices | None, rng: np.random.Generator) -> Indices:
    """Every image once."""
    if classes is None:
        return rng.permutation(total)
    if order.kind == "class_by_class":
        return class_by_class(classes, rng)
    assert order.gamma is not None
    return dirichlet(classes, order.gamma, order.slots or len(np.unique(classes)), rng)


def few_classes(classes: Indices, count: int, bounds: tuple[int, int], rng: np.random.Generator) -> Indices:
    """`count` images of K classes, K drawn from least to most; every class has one at least.

    K is at most `count` and the number of classes. Where K classes have too few images, more classes are added.
    """
    if not count:
        return np.empty(0, np.int64)
    order = rng.permutation(np.unique(classes))
    wanted = int(rng.integers(bounds[0], bounds[1], endpoint=True))
    number = min(wanted, count, len(order))
    while np.isin(classes, order[:number]).sum() < count:
        number += 1
    firsts = np.array([rng.choice(np.flatnonzero(classes == c)) for c in order[:number]], np.int64)
    rest = np.setdiff1d(np.flatnonzero(np.isin(classes, order[:number])), firsts)
    chosen = np.concatenate([firsts[:count], rng.permutation(rest)[: max(0, count - number)]])
    return rng.permutation(chosen)


def class_by_class(classes: Indices, rng: np.random.Generator) -> Indices:
    """All images (n,), one class after another, the classes in random order."""
    order = rng.permutation(np.unique(classes))
    return np.concatenate([rng.permutation(np.flatnonzero(classes == c)) for c in order])


def dirichlet(classes: Indices, gamma: float, slots: int, rng: np.random.Generator) -> Indices:
    """All images (n,) by time slot: a class's images are spread over the slots by shares from Dirichlet(gamma)."""
    parts: list[list[Indices]] = [[] for _ in range(slots)]
    for c in np.unique(classes):
        own = rng.permutation(np.flatnonzero(classes == c))
        edges = np.cumsum(rng.dirichlet(np.full(slots, gamma)))[:-1]
        for slot, part in enumerate(np.split(own, np.round(edges * len(own)).astype(np.int64))):
            parts[slot].append(part)
    return np.concatenate([rng.permutation(np.concatenate(part)) for part in parts])
