"""What a run reads: weight files, and the pictures and labels of its tasks; and the identity of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from adamerge.digests import digest
from adamerge.errors import DataError, RunError
from adamerge.runs.backbones import model_of
from adamerge.runs.images import open_tasks
from adamerge.runs.probing import from_pictures
from adamerge.runs.rules import rule_sees
from adamerge.runs.scales import chooses_on
from adamerge.runs.weights import fingerprints
from adamerge.settings import identify
from adamerge.settings.commands import PoolSettings, RunSettings
from adamerge.settings.identity import Identity
from adamerge.settings.sections import PROTOTYPES
from adamerge.tasks.picture import READING
from adamerge.tasks.task import Task
from adamerge.tracking.run_record import Lineage, Pictures, Weights


class Inputs:
    """The inputs of what a command does with a config. Tasks are opened once, when they are first asked for: what
    was identified is what is read.

    Args:
        paths: the weight files by name.
        splits: the splits that are read, of which the first must be there; of unseen tasks it is the test split.
        task: the only one of the suite's tasks that is read; None: all are.
    """

    def __init__(
        self,
        settings: PoolSettings,
        paths: Mapping[str, str],
        splits: tuple[str, ...],
        task: Task | None = None,
    ) -> None:
        self.settings = settings
        self.paths = dict(paths)
        self.splits = splits
        self._task = task

    @cached_property
    def files(self) -> dict[str, str]:
        """The identity of each weight file."""
        return fingerprints(self.paths)

    @cached_property
    def tasks(self) -> list[Task]:
        return open_tasks(self.settings) if self._task is None else [self._task]

    @cached_property
    def unseen(self) -> list[Task]:
        return open_tasks(self.settings, unseen=True)

    def identity(self, command: str) -> Identity:
        return identify(self.settings, command, self.files, self._pictures, {"reading of pictures": READING})

    def lineage(self, identity: Identity) -> Lineage:
        """What the run folder notes of them."""
        uses = {name: Weights(path, self.files[name]) for name, path in self.paths.items()}
        data: dict[str, dict[str, Pictures]] = {}
        for task, split in self._read():
            if split in self._pictures[task.name]:
                number = len(task.source.images(split))
                words = digest(task.classes or task.source.class_names)
                found = Pictures(self._pictures[task.name][split], number, words)
                data.setdefault(task.name, {})[split] = found
        return Lineage(
            uses,
            data=data,
            heads=self._heads(),
            code=dict(identity.code),
            settings=identity.settings,
            origin=self.settings.origin,
        )

    def refuse_changed(self) -> None:
        """Check that the pictures and labels are those that were identified at first.

        Raises:
            RunError: they have changed meanwhile, so that it is not known what was read.
        """
        found = self._identified()
        changed = [
            f"{task}, {split}"
            for task, splits in self._pictures.items()
            for split in splits
            if found[task].get(split) != splits[split]
        ]
        if changed:
            raise RunError(
                f"The pictures or labels of {'; '.join(changed)} changed while the run was reading them.\n"
                "  Its numbers are of no data set and are not recorded. Run it again, on data that stay as they are."
            )

    @cached_property
    def _pictures(self) -> dict[str, dict[str, str]]:
        return self._identified()

    def _identified(self) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for task, split in self._read():
            splits = found.setdefault(task.name, {})
            try:
                splits[split] = task.source.identity(split)
            except DataError:
                if split == self.splits[0] or split in heads_read(self.settings):
                    raise
                # What else is missing is said when it comes to it, with what it is needed for.
        return found

    def _read(self) -> Iterator[tuple[Task, str]]:
        for task in self.tasks:
            # Without a validation split of its own, a task's is held out of the training pictures.
            own = task.source.validation
            yield from ((task, own or "train") if s == "validation" else (task, s) for s in self.splits)
        if self.splits[0] == "test":
            yield from (
                (task, split) for task in self.unseen for split in ("test", *heads_read(self.settings))
            )

    def _heads(self) -> dict[str, str]:
        tower = self.files.get("text", self.files.get("base"))
        made: dict[str, Any] = {"tower": tower, "model": model_of(self.settings.backbone)}
        every = (*self.tasks, *self.unseen)
        if from_pictures(self.settings):
            made["shots"] = self.settings.checkpoints.shots
            if (
                self.settings.checkpoints.heads != PROTOTYPES
            ):  # without it older runs' digests are what they were
                made["kind"] = self.settings.checkpoints.heads
            return {t.name: digest({**made, "pictures": self._pictures[t.name]["train"]}) for t in every}
        return {
            task.name: self.files.get(f"heads/{task.name}") or digest({**made, "prompts": task.prompts()})
            for task in every
            if f"heads/{task.name}" in self.files or task.classes is not None
        }


def splits_of(settings: RunSettings) -> tuple[str, ...]:
    """The splits that a run of the config's method and rule reads: one that is given labels, or adapts on training or
    validation images, or has heads made of pictures, takes the training split's too."""
    suite, method = settings.suite.adapt_on, settings.method
    read = {"test", *heads_read(settings)} if method.labels is None else {"test", "train"}
    seen = [method.adapt_on or suite] if method.schedule is not None else []
    seen += [on.split for on in (rule_sees(settings), chooses_on(settings)) if on is not None]
    for on in seen:
        read |= {"train", "validation"} if on == "validation" else {on} if on == "train" else set()
    return tuple(split for split in ("test", "train", "validation") if split in read)


def heads_read(settings: PoolSettings) -> tuple[str, ...]:
    """The splits that the heads are made from."""
    return ("train",) if from_pictures(settings) else ()


def told_apart(ours: Lineage, theirs: Lineage) -> list[str]:
    """What two runs of the same settings do not share, in words."""
    told = []
    if ours.data is not None and theirs.data is not None and ours.data != theirs.data:
        told += [
            f"other pictures or labels of {task}, {split}{_numbers(theirs.data[task].get(split), found)}"
            for task, splits in ours.data.items()
            for split, found in splits.items()
            if task in theirs.data and theirs.data[task].get(split) != found
        ]
    theirs_by_name = {name: weights.identity for name, weights in theirs.uses.items()}
    other = [
        n for n, weights in ours.uses.items() if theirs_by_name.get(n, weights.identity) != weights.identity
    ]
    told += [f"other weights: {', '.join(other)}"] if other else []
    if ours.code != theirs.code:
        modules = sorted(m for m in {*ours.code, *theirs.code} if ours.code.get(m) != theirs.code.get(m))
        told.append(f"other code: {', '.join(modules)}")
    return told


def _numbers(then: Pictures | None, now: Pictures) -> str:
    if then is None or then.pictures == now.pictures:
        return ""
    return f" ({then.pictures} then, {now.pictures} now)"
