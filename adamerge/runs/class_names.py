"""The names of a head's rows where a config.json beside the weights states them (`id2label`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from adamerge.errors import DataError
from adamerge.models.settling import stated_of
from adamerge.settings.commands import PoolSettings
from adamerge.tasks.class_words import matches, unlike
from adamerge.tasks.names import listed
from adamerge.tasks.task import Task

_S = TypeVar("_S", bound=PoolSettings)
_SHOWN = 6


def stated_classes(paths: Mapping[str, str], task: str) -> tuple[tuple[str, ...], str]:
    """(the names of the rows of a task's head, the file that states them): beside its head file, else beside its
    expert. Nothing and "" where neither has names."""
    for kind in ("heads", "experts"):
        if (path := paths.get(f"{kind}/{task}")) is not None:
            stated = stated_of(path)
            if stated.classes:
                return stated.classes, stated.where["classes"]
    return (), ""


def with_stated_classes(settings: _S, paths: Mapping[str, str]) -> _S:
    """The settings with the class names of tasks that leave them open taken from the files beside the weights.

    Class names that are given as a mapping from the data's own are words of any kind; only their number counts.

    Raises:
        DataError: the given names contradict the files'.
    """
    catalogue = settings.suite.catalogue
    found: dict[str, Any] = {}
    for task in [*settings.suite.tasks, *settings.suite.unseen]:
        names, where = stated_classes(paths, task)
        entry = catalogue.get(task, catalogue.get("*", {}))
        given = entry.get("classes")
        if not names or (isinstance(given, Mapping) and len(given) == len(names)):
            continue
        if given is None:
            found[task] = {**catalogue.get(task, {}), "classes": list(names)}
        else:
            _refuse_others(task, [str(word) for word in given], entry.get("names"), names, where)
    suite = settings.suite.model_copy(update={"catalogue": {**catalogue, **found}})
    return settings.model_copy(update={"suite": suite}) if found else settings


def _refuse_others(
    task: str, given: Sequence[str], usual: Sequence[str] | None, names: Sequence[str], where: str
) -> None:
    """`usual`: the usual names of the given words' classes, where the words are others."""
    spellings = [given] if usual is None else [given, list(map(str, usual))]
    wrong = [unlike(own, names) for own in spellings]
    if all(index is not None for index in wrong):
        raise DataError(
            f"Task '{task}': {where} names its {len(names)} classes {listed(list(names), _SHOWN)}, and "
            f"suite.catalogue.{task}.classes its {len(given)} classes {listed(list(given), _SHOWN)}; the first that "
            f"differs is number {wrong[0]}.\n  Leave suite.catalogue.{task}.classes out to take the file's names, or "
            "correct the file. Other words for the same classes are given as a mapping from the data's names."
        )


def check_rows(task: Task, paths: Mapping[str, str]) -> None:
    """Check that the labels of the data number the classes as the rows of the task's head file do.

    Raises:
        DataError: the data have the names of the rows in another order.
    """
    if f"heads/{task.name}" not in paths:
        return
    names, where = stated_classes(paths, task.name)
    known = task.source.class_names
    if not names or known is None or len(names) != len(known):
        return  # another number is refused where rows are counted
    astray = {label: row for label, row in matches(names, known).items() if row != label}
    if not astray:
        return
    index = min(astray)
    raise DataError(
        f"Task '{task.name}': label {index} of the data is '{known[index]}', and row {index} of its head is "
        f"'{names[index]}' ({where}).\n  Give a head whose rows are in the order of the data's labels: "
        f"{listed(list(known), _SHOWN)}."
    )
