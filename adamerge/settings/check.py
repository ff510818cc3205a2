"""Checks a composed config as a whole: every mistake in one error, before any file is opened."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from adamerge.settings.annotations import reason
from adamerge.settings.components import WORDS, check_component, component
from adamerge.settings.mistakes import Mistakes, near
from adamerge.settings.sections import SECTIONS, TRAINER_OPTIONS, CommonSection

# Sections that are components themselves, with words for people beside the options.
_COMPONENTS = ("rule",)
# The catalogue entry that serves every task without one of its own.
_ANY_TASK = "*"


def validate(config: DictConfig) -> None:
    """Check values, components, references between sections and missing values.

    Raises:
        ConfigError: all mistakes, each with its place and what to do.
    """
    mistakes = Mistakes()
    find_mistakes(config, mistakes)
    mistakes.report()


def find_mistakes(config: DictConfig, mistakes: Mistakes) -> None:
    """Note every mistake of a composed config."""
    plain = _resolved(config, "", mistakes)
    _check_section("", plain, CommonSection, mistakes)
    for where, section in SECTIONS.items():
        group, _, part = where.partition(".")
        values = plain.get(group)
        if part:
            values = values.get(part) if isinstance(values, dict) else None
        if where in _COMPONENTS and isinstance(values, dict) and "_target_" in values:
            values = {key: value for key, value in values.items() if key in (*WORDS, "_target_")}
        if values is not None:
            _check_section(where, values, section, mistakes)
    _check_tasks(plain.get("suite"), mistakes)
    _check_trainer(plain.get("trainer"), mistakes)
    for where, node in _components(plain):
        found = component(node) if where in _COMPONENTS else node
        check_component(where, found or {}, mistakes)


def _resolved(node: Any, where: str, mistakes: Mistakes) -> Any:
    """A node as plain data; values that are missing or cannot be resolved are noted and left out."""
    if not isinstance(node, DictConfig | ListConfig):
        return node
    if node._is_none():
        return None
    plain: dict[Any, Any] = {}
    items: Any = node
    for key in items if isinstance(node, DictConfig) else range(len(node)):
        place = _place(where, key)
        if OmegaConf.is_missing(items, key):
            mistakes.add(place, f"has no value; give {place}=...")
            continue
        try:
            child = items[key]
        except InterpolationToMissingValueError:
            mistakes.places.add(place)  # what it refers to is noted itself
        except OmegaConfBaseException as error:
            mistakes.add(place, f"{_first_line(error)} (it says {items._get_node(key)!s}).")
        else:
            plain[key] = _resolved(child, place, mistakes)
    return plain if isinstance(node, DictConfig) else list(plain.values())


def _place(where: str, key: Any) -> str:
    if isinstance(key, int):
        return f"{where}[{key}]"
    return f"{where}.{key}" if where else str(key)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")


def _check_section(where: str, values: Any, section: type[BaseModel], mistakes: Mistakes) -> None:
    if not isinstance(values, dict):
        mistakes.add(where, f"is a group of options (got {values!r}).")
        return
    try:
        section.model_validate(values)
    except ValidationError as error:
        places: dict[str, list[Any]] = {}
        for problem in error.errors():
            # The members of a union stand in the place too; one line for the value as a whole.
            depth = 1 if problem["loc"][1:] and isinstance(problem["loc"][1], str) else len(problem["loc"])
            place = where
            for part in problem["loc"][:depth]:
                place = _place(place, part)
            places.setdefault(place, []).append(problem)
        for place, problems in places.items():
            if place not in mistakes.places:
                mistakes.add(place, _phrase(place, problems, values, section))


def _phrase(place: str, problems: list[Any], values: dict[str, Any], section: type[BaseModel]) -> str:
    first = problems[0]
    if first["type"] == "extra_forbidden":
        offered = [field.alias or name for name, field in section.model_fields.items() if name != "summary"]
        return f"no such option; {near(str(first['loc'][-1]), offered, otherwise='it has {}.')}"
    if first["type"] == "missing":
        return f"has no value; give {place}=..."
    reasons = ", or ".join(dict.fromkeys(reason(problem) for problem in problems))
    got = values[first["loc"][0]] if len(problems) > 1 else first["input"]
    if isinstance(got, str) and first["type"] == "list_type":
        return f"{reasons} (got {got!r}); write '{place}=[{got}]'."
    return f"{reasons} (got {got!r})."


def _check_tasks(suite: Any, mistakes: Mistakes) -> None:
    if not isinstance(suite, dict):
        return
    catalogue, tasks = suite.get("catalogue"), suite.get("tasks")
    if not isinstance(catalogue, dict) or not isinstance(tasks, list) or _ANY_TASK in catalogue:
        return
    unseen = suite.get("unseen")
    for where, names in (("tasks", tasks), ("unseen", unseen if isinstance(unseen, list) else [])):
        for index, task in enumerate(names):
            if task not in catalogue:
                mistakes.add(f"suite.{where}[{index}]", f"no task '{task}'; {near(str(task), catalogue)}")
            elif where == "unseen" and task in tasks:
                mistakes.add(f"suite.unseen[{index}]", f"'{task}' is among suite.tasks already.")


def _check_trainer(trainer: Any, mistakes: Mistakes) -> None:
    for key in trainer if isinstance(trainer, dict) else ():
        if key not in TRAINER_OPTIONS:
            hint = near(str(key), TRAINER_OPTIONS, otherwise="those are {}.")
            mistakes.add(f"trainer.{key}", f"is no option of the trainer that may be set; {hint}")


def _components(plain: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The outermost nodes with a `_target_`, with their places; of the catalogue only the tasks in use."""
    suite = plain.get("suite")
    tasks = suite.get("tasks") if isinstance(suite, dict) else None
    unseen = suite.get("unseen") if isinstance(suite, dict) else None
    lists = [names for names in (tasks, unseen) if isinstance(names, list)]
    used = {*(name for names in lists for name in names), _ANY_TASK}

    def walk(where: str, node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        if not isinstance(node, dict):
            return
        if "_target_" in node:
            yield where, node
            return
        for key, value in node.items():
            if where == "suite" and key == "sources":  # those in use stand in the catalogue
                continue
            if where != "suite.catalogue" or key in used:
                yield from walk(_place(where, key), value)

    yield from walk("", plain)
