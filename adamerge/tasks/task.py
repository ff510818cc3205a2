"""A task: its name, class names, prompt templates, and the source of its images."""

from __future__ import annotations

import hashlib
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adamerge.errors import ConfigError, DataError
from adamerge.tasks.class_words import class_words
from adamerge.tasks.images import Pictures, random_crop
from adamerge.tasks.names import all_numbers, listed, suggest

log = logging.getLogger(__name__)
Indices = NDArray[np.int64]

# The catalogue entry with the defaults of all tasks; "{task}" in its source is the task's name.
ANY_TASK = "*"
_ENTRY = ("source", "classes", "templates", "names", "sizes", "licence")
_TEMPLATES = ("a photo of a {}.",)


class Source(ABC):
    """Where a task's pictures come from. Labels have a method of their own: adaptation never calls it."""

    class_names: tuple[str, ...] | None = None
    """The data's own name of each label, in the order of the labels; None where the data has none."""

    validation: str | None = None
    """The name of a split of its own for validation; None where it is to be held out of the training pictures."""

    @abstractmethod
    def images(self, split: str) -> Pictures:
        """The pictures of a split, "train" or "test", and that of `validation` where there is one.

        Raises:
            DataError: data that is not there or has no pictures.
        """

    @abstractmethod
    def labels(self, split: str) -> NDArray[np.int64] | None:
        """The class index of each picture, int64 (n,); None where the data has no labels."""

    def notes(self, split: str) -> list[str]:
        """What of a split's data was passed over or taken by a rule that a user may not expect, a sentence each."""
        return []

    def identity(self, split: str, rows: Indices | None = None) -> str:
        """What tells a split from any other: its pictures, labels and class names, in order. A run's id holds it.

        Where the data lies, and what its files are called, makes no difference.

        Args:
            rows: the pictures of the split that count; None: all.

        Raises:
            DataError: no such split, or data that cannot be read.
        """
        labels = self.labels(split)
        if labels is not None and rows is not None:
            labels = labels[rows]
        result = hashlib.sha256(json.dumps(self.class_names).encode())
        result.update(b"unlabeled" if labels is None else np.asarray(labels, np.int64).tobytes())
        for digest in self.digests(split, rows):
            result.update(digest.encode())
        return result.hexdigest()

    def digests(self, split: str, rows: Indices | None = None) -> list[str]:
        """A digest of each picture. It must tell apart whatever this source does to a picture.

        Here of the decoded pixels, which serves every source; a source that knows the stored bytes is faster.
        """
        pictures = self.images(split)
        chosen = range(len(pictures)) if rows is None else rows.tolist()
        return [_of_pixels(pictures[index]) for index in chosen]

    def pretraining_batch(
        self, n: int, rng: np.random.Generator, size: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Labeled pictures for pre-training, uint8 (n, size, size, 3) and int64 (n,), by `rng` alone.

        Drawn from the split "train", each cropped at random to 0.7 to 1 of its area. Nothing is flipped:
        digits, letters and signs would change their meaning.

        Raises:
            DataError: training pictures without labels.
        """
        images, labels = self.images("train"), self.labels("train")
        if labels is None:
            raise DataError("The training pictures have no labels, so they cannot serve for pre-training.")
        chosen = rng.integers(len(labels), size=n)
        pixels = [random_crop(images[index], size, (0.7, 1.0), rng) for index in chosen.tolist()]
        return np.stack(pixels), labels[chosen]


def _of_pixels(picture: Any) -> str:
    if isinstance(picture, np.ndarray):
        content = [
            repr((picture.shape, str(picture.dtype))).encode(),
            np.ascontiguousarray(picture).tobytes(),
        ]
    else:  # PIL's; the palette gives the pixels their colours, the tags say which side is up
        palette, tags = bytes(picture.getpalette() or ()), picture.getexif().tobytes()
        content = [repr((picture.mode, picture.size)).encode(), palette, tags, picture.tobytes()]
    return hashlib.sha256(b"\0".join(content)).hexdigest()


@dataclass(frozen=True)
class Task:
    """A classification task.

    Args:
        name: as in the config and in every report.
        classes: the words for each label in prompts; None where only a head file knows the classes.
        templates: prompts with "{}" in the class's place.
        source: the images.
        sizes: {split: number of pictures} that the published split has.
        by_position: the classes' words are paired with the labels by their position alone.
    """

    name: str
    classes: tuple[str, ...] | None
    templates: tuple[str, ...]
    source: Source
    sizes: Mapping[str, int] = field(default_factory=dict)
    by_position: bool = False

    def prompts(self) -> list[list[str]]:
        """The prompts of each class.

        Raises:
            DataError: no class names.
        """
        if self.classes is None:
            raise DataError(
                f"Task '{self.name}' has no class names, so no zero-shot head can be made of prompts.\n"
                f"  Give +suite.catalogue.{self.name}.classes=[...], or head files with checkpoints.heads=..."
            )
        return [[template.replace("{}", name) for template in self.templates] for name in self.classes]


def check(task: Task, split: str = "test", tell: Callable[[str], None] = log.warning) -> None:
    """Check that class names, labels and pictures of a split agree in number.

    Args:
        tell: is given what is not wrong but worth knowing, a sentence each.

    Raises:
        DataError: what does not agree.
    """
    where = f"Task '{task.name}', split {split}"
    known = task.source.class_names
    if task.classes is not None and known is not None and len(task.classes) != len(known):
        raise DataError(
            f"{where}: {len(task.classes)} class names are given, but the data has {len(known)} classes: "
            f"{listed(known)}.\n  Mend suite.catalogue.{task.name}.classes; null takes the data's names."
        )
    images, labels = task.source.images(split), task.source.labels(split)
    if (expected := task.sizes.get(split)) not in (None, len(images)):
        tell(
            f"{where}: {len(images)} pictures, while the published split has {expected}; "
            "published numbers are for that."
        )
    for note in task.source.notes(split):
        tell(f"{where}: {note}.")
    if labels is None:
        return
    if len(labels) != len(images):
        raise DataError(f"{where}: {len(images)} pictures, but {len(labels)} labels; each picture needs one.")
    names = task.classes if task.classes is not None else known
    (wrong,) = np.nonzero((labels < 0) | (labels >= (np.inf if names is None else len(names))))
    if len(wrong):
        highest = "from 0 on" if names is None else f"0 to {len(names) - 1} ({len(names)} classes)"
        raise DataError(
            f"{where}: {len(wrong)} labels are out of range, e.g. {labels[wrong[0]]} of picture {wrong[0]}; "
            f"expected {highest}.\n  Mend the labels, or suite.catalogue.{task.name}.classes."
        )


def check_head(task: Task, rows: int, split: str = "test", from_file: bool = False) -> None:
    """Check that a task's head has a row for each class; where these have no names, for each label of the split.

    Args:
        from_file: the head is a file, which may have been made for another order of the classes.

    Raises:
        DataError: it has another number.
    """
    names = task.classes if task.classes is not None else task.source.class_names
    if names is None:
        labels = task.source.labels(split)
        if labels is not None and len(labels) and labels.max() >= rows:
            raise DataError(
                f"Task '{task.name}', split {split}: its head has {rows} rows, but the labels go up to "
                f"{labels.max()}.\n  Give the head made for these classes, rows in the order of the labels."
            )
    elif len(names) != rows:
        raise DataError(
            f"Task '{task.name}': its head has {rows} rows, but there are {len(names)} classes: {listed(names)}.\n"
            f"  Give the head made for these classes, or mend suite.catalogue.{task.name}.classes."
        )
    known = task.source.class_names
    if from_file and known is not None and all_numbers(known) and list(known) != sorted(known):
        log.warning(
            "Task '%s': its classes are numbers, and the rows of its head are taken in their order: %s. A head made "
            "with torchvision's ImageFolder has them in the order of text: %s.",
            task.name, listed(known), listed(sorted(known)),
        )  # fmt: skip


def build_tasks(
    names: Sequence[str], catalogue: Mapping[str, Mapping[str, Any]], instantiate: Callable[..., Any]
) -> list[Task]:
    """Make the named tasks of a suite.

    Args:
        catalogue: task -> {source, classes, templates}. `source` is what `instantiate` makes a Source of.
            `classes` lists words: those that are the data's own names but for case and punctuation are brought into
            the order of its labels, others are paired by position, which is said. Or it maps the data's own names
            to words (in any order), or is None for the data's own names with underscores turned to spaces.
            `templates` may be left out, and so may `names` (the data's own name for each of the classes
            listed, by which a source with another order of labels is recognised), `sizes` ({split: pictures})
            and `licence`. The entry "*" holds the defaults of all tasks.
        instantiate: makes the object that a config node describes.

    Raises:
        ConfigError: an unknown task, or a mistake in its entry.
        DataError: class names that do not fit the data, or data that is not there.
    """
    return [_build(name, _entry(name, catalogue), instantiate) for name in names]


class Unopened(Source):
    """In the place of pictures that are not looked at."""

    def images(self, split: str) -> Pictures:
        raise DataError("The pictures of this task were not opened.")

    def labels(self, split: str) -> NDArray[np.int64] | None:
        raise DataError("The labels of this task were not opened.")


def tasks_without_pictures(names: Sequence[str], catalogue: Mapping[str, Mapping[str, Any]]) -> list[Task]:
    """The tasks as the catalogue alone has them: words in its order, None where only the data name the classes.

    Raises:
        ConfigError: as `build_tasks`.
    """
    entries = {name: _entry(name, catalogue) for name in names}
    for entry in entries.values():
        if isinstance(words := entry.get("classes"), Mapping):
            entry["classes"] = list(words.values())
    return [_build(name, entry, lambda node: Unopened()) for name, entry in entries.items()]


def _entry(name: str, catalogue: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    if name not in catalogue and ANY_TASK not in catalogue:
        raise ConfigError(f"The suite has no task '{name}'; {suggest(name, catalogue)}")
    entry = {**_for_task(name, catalogue.get(ANY_TASK, {})), **catalogue.get(name, {})}
    for key in entry:
        if key not in _ENTRY:
            raise ConfigError(f"suite.catalogue.{name} has no option '{key}'; {suggest(key, _ENTRY)}")
    if not entry.get("source"):
        raise ConfigError(f"suite.catalogue.{name} has no source; give it a source with a _target_.")
    return entry


def _for_task(name: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    source = defaults.get("source", {})
    filled = {k: v.replace("{task}", name) if isinstance(v, str) else v for k, v in source.items()}
    return {**defaults, "source": filled}


def _build(name: str, entry: Mapping[str, Any], instantiate: Callable[..., Any]) -> Task:
    where = f"suite.catalogue.{name}"
    templates = _words(f"{where}.templates", entry.get("templates") or _TEMPLATES)
    for template in templates:
        if "{}" not in template:
            raise ConfigError(f"{where}.templates: {template!r} has no {{}} where the class name goes.")
    given = entry.get("classes")
    if isinstance(given, Mapping):
        data_names, words = (_words(f"{where}.classes", list(part)) for part in (given, given.values()))
        given = dict(zip(data_names, words, strict=True))
    elif given is not None:
        given = _words(f"{where}.classes", given)
    names = None if entry.get("names") is None else _words(f"{where}.names", entry["names"])
    source = instantiate(entry["source"])
    found = class_words(name, given, source.class_names, names)
    return Task(name, found.words, templates, source, entry.get("sizes") or {}, found.by_position)


def _words(where: str, values: Any) -> tuple[str, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ConfigError(f"{where}: a list is expected (got {values!r}).")
    for value in values:
        if not isinstance(value, str | int) or isinstance(value, bool):
            hint = (
                " YAML has yes, no, on and off as truth values: use quotes." if value in (True, False) else ""
            )
            raise ConfigError(f"{where}: text is expected (got {value!r}).{hint}")
    return tuple(str(value) for value in values)
