"""One task's data: there, of one length, decodable, named, each picture in one class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import numpy as np
from numpy.typing import NDArray

from adamerge.diagnosis.findings import Finding
from adamerge.diagnosis.pictures import Seen, look
from adamerge.settings import instantiate
from adamerge.settings.commands import PoolSettings
from adamerge.tasks.images import Pictures
from adamerge.tasks.names import listed
from adamerge.tasks.task import Task, build_tasks, check

_NAMED = 5  # pictures that a finding names
_PAIRS = 60  # words that a finding pairs with classes
Watch = Callable[[str, Pictures], AbstractContextManager[Callable[[int], None]]]


def _unwatched(title: str, pictures: Pictures) -> AbstractContextManager[Callable[[int], None]]:
    return nullcontext(lambda done: None)


def task_data(settings: PoolSettings, name: str, size: int, watch: Watch = _unwatched) -> Iterator[Finding]:
    """Open a task's test split, check names, labels and pictures against each other, and look at every picture.

    Args:
        size: the model's resolution in pixels.
        watch: shows how far the look at the pictures has come.
    """
    what = f"data {name}"
    (task,) = build_tasks([name], settings.suite.catalogue, instantiate)
    told: list[str] = []
    check(task, "test", told.append)
    pictures, labels = task.source.images("test"), task.source.labels("test")
    for note in told:
        yield Finding("warning", what, note.removeprefix(f"Task '{name}', split test: "))
    if task.by_position:
        yield Finding("warning", what, _pairing(task, labels), "To be sure, map the data's names to words.")
    with watch(f"pictures of {name}", pictures) as progress:
        seen = look(pictures, labels, size, progress)
    yield from _unusual(what, seen)
    if settings.checkpoints.heads is None:
        task.prompts()  # without class names there would be no head
    yield _summary(what, task, len(pictures), labels, seen)


def _pairing(task: Task, labels: NDArray[np.int64] | None) -> str:
    """Each word, the class that it stands for, and how many pictures that has."""
    names = task.source.class_names or ()
    counts = np.bincount(labels, minlength=len(names)) if labels is not None else None
    pairs = [
        f"{word} -> {name}" + ("" if counts is None else f" ({counts[label]})")
        for label, (word, name) in enumerate(zip(task.classes or (), names, strict=True))
    ]
    return f"words and classes are paired by position: {listed(pairs, _PAIRS)}"


def _unusual(what: str, seen: Seen) -> Iterator[Finding]:
    if seen.sixteen:
        text = f"{seen.sixteen} pictures have 16 bits, whose full range becomes 8 bits"
        yield Finding("warning", what, text, "Pictures that use a part of the range only will be dark.")
    if seen.animated:
        yield Finding(
            "warning", what, f"{seen.animated} pictures have several frames or pages; the first is taken"
        )
    if seen.twins:
        examples = "; ".join(" = ".join(names[:2]) for names in seen.twins[:_NAMED])
        count = sum(map(len, seen.twins))
        text = f"{count} pictures are in different classes with the same bytes, e.g. {examples}"
        yield Finding("warning", what, text, "One of the labels is wrong; remove the others.")


def _summary(what: str, task: Task, count: int, labels: NDArray[np.int64] | None, seen: Seen) -> Finding:
    if seen.unreadable:
        text = f"{len(seen.unreadable):,} of {count:,} pictures cannot be used: {listed(seen.unreadable, _NAMED)}"
        return Finding("problem", what, text, "Replace or remove them; a run stops at the first.")
    text = f"{count:,} pictures ({_looked(count, seen)}), {_classes(task, labels)}"
    if labels is None:
        return Finding(
            "ok", what, f"{text}; without labels there is an agreement with the expert, but no accuracy"
        )
    if task.classes is not None and (absent := len(task.classes) - len(np.unique(labels))):
        advice = "Fine for a sample; else look at the folders or labels."
        return Finding("warning", what, f"{text}, {absent} of which do not occur", advice)
    return Finding("ok", what, text)


def _looked(count: int, seen: Seen) -> str:
    """How closely the pictures were looked at, and what of them is not plain RGB or grey."""
    parts = ["all opened"] if seen.opened == count else []
    parts += [f"{seen.decoded:,} decoded"]
    parts += [f"{seen.turned:,} turned by EXIF"] if seen.turned else []
    parts += [f"{number:,} {mode}" for mode, number in sorted(seen.modes.items())]
    return ", ".join(parts)


def _classes(task: Task, labels: NDArray[np.int64] | None) -> str:
    if task.classes is not None:
        return f"{len(task.classes)} classes"
    return "classes not named" if labels is None else f"{len(np.unique(labels))} classes, not named"
