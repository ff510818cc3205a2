"""Checks a config as a whole: every mistake in one error, before any file is opened; and types it."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from adamerge.hints import near
from adamerge.settings.annotations import reason
from adamerge.settings.components import check_component
from adamerge.settings.labels import check_guard, check_labels
from adamerge.settings.mistakes import Mistakes
from adamerge.settings.sections import CHEAP, ComponentSection, Section
from adamerge.settings.structure import instead
from adamerge.settings.tuned import check_tuned

# The catalogue entry that serves every task without one of its own.
_ANY_TASK = "*"
_S = TypeVar("_S", bound=Section)
Plain = dict[str, Any]  # a config as YAML holds it, without interpolations


def validate(plain: Plain, kind: type[_S]) -> _S:
    """A command's settings from its resolved config.

    Raises:
        ConfigError: all mistakes, each with its place and what to do.
    """
    mistakes = Mistakes()
    find_mistakes(plain, kind, mistakes)
    mistakes.report()
    return kind.model_validate(plain)


def find_mistakes(plain: Plain, kind: type[Section], mistakes: Mistakes) -> None:
    """Note every mistake: values, components, references between sections, and what is missing."""
    _check_section("", plain, kind, mistakes)
    _check_tasks(plain.get("suite"), mistakes)
    if isinstance(suite := plain.get("suite"), dict):
        check_tuned(suite.get("tuned"), mistakes)
    for where, node in _components(plain):
        annotation, said = _at(kind, where.split("."))
        if isinstance(annotation, type) and issubclass(annotation, ComponentSection):
            check_component(where, annotation.component_in(node) or {}, mistakes, tried=True)
        else:
            check_component(where, node, mistakes, tried=CHEAP in said)
    check_labels(plain, mistakes)
    check_guard(plain, mistakes)


def _at(kind: Any, path: list[str]) -> tuple[Any, tuple[Any, ...]]:
    """What a section says of the value at a dotted place: its type, and what is annotated to that; nothing of a place
    within something untyped."""
    if not path:
        return kind, ()
    if not (isinstance(kind, type) and issubclass(kind, Section) and path[0] in kind.model_fields):
        return None, ()
    field = kind.model_fields[path[0]]
    annotation, said, rest = field.annotation, tuple(field.metadata), path[1:]
    members = [m for m in typing.get_args(annotation) if m is not type(None)]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        annotation = members[0]
    elif typing.get_origin(annotation) is dict and rest:  # {name: component}
        annotation, rest = members[1], rest[1:]
    if typing.get_origin(annotation) is typing.Annotated:
        annotation, *more = typing.get_args(annotation)
        said = (*said, *more)
    return (annotation, said) if not rest else _at(annotation, rest)


def with_mistakes(plain: Plain, kind: type[_S]) -> _S:
    """The settings of a config with mistakes, for what looks at as much of it as can be used. Nothing is checked."""
    nested = {
        name: with_mistakes(plain[name], section)
        for name, section in _nested(kind).items()
        if isinstance(plain.get(name), dict)
    }
    listed = {
        name: {
            key: with_mistakes(entry, section)
            for key, entry in plain[name].items()
            if isinstance(entry, dict)
        }
        for name, section in _mapped(kind).items()
        if isinstance(plain.get(name), dict)
    }
    return kind.model_construct(**{**plain, **nested, **listed})


def place(where: str, key: Any) -> str:
    """The dotted place of a key, or of a list's element, below another."""
    if isinstance(key, int):
        return f"{where}[{key}]"
    return f"{where}.{key}" if where else str(key)


def _nested(kind: type[Section]) -> dict[str, type[Section]]:
    """The fields of a section that are sections themselves."""
    found: dict[str, type[Section]] = {}
    for name, field in kind.model_fields.items():
        union = typing.get_origin(field.annotation) in (typing.Union, types.UnionType)
        members = (
            [m for m in typing.get_args(field.annotation) if m is not type(None)]
            if union
            else [field.annotation]
        )
        (only, *others) = members
        if not others and isinstance(only, type) and issubclass(only, Section):
            found[name] = only
    return found


def _mapped(kind: type[Section]) -> dict[str, type[Section]]:
    """The fields of a section that are mappings of names to sections."""
    found: dict[str, type[Section]] = {}
    for name, field in kind.model_fields.items():
        members = typing.get_args(field.annotation) if typing.get_origin(field.annotation) is dict else ()
        if members and isinstance(members[1], type) and issubclass(members[1], Section):
            found[name] = members[1]
    return found


def _check_section(where: str, values: Any, section: type[Section], mistakes: Mistakes) -> None:
    if not isinstance(values, dict):
        mistakes.add(where, instead(where, values) or f"is a group of options (got {values!r}).")
        return
    nested = _nested(section)
    _check_own(where, values, section, nested, mistakes)
    for name, part in nested.items():
        given = values.get(name)
        if given is not None or (name in values and not _takes_none(section, name)):
            _check_section(place(where, name), given, part, mistakes)


def _takes_none(section: type[Section], name: str) -> bool:
    return type(None) in typing.get_args(section.model_fields[name].annotation)


def _check_own(
    where: str, values: Plain, section: type[Section], nested: Mapping[str, type[Section]], mistakes: Mistakes
) -> None:
    """A section's own values; those of nested sections are looked at by themselves."""
    if section.model_config.get("extra") == "allow" and "_target_" not in values:
        for key in [key for key in values if key not in section.model_fields]:
            mistakes.add(place(where, key), _no_such(key, [*section.model_fields, "_target_"]))
    try:
        section.model_validate(values)
    except ValidationError as error:
        places: dict[str, list[Any]] = {}
        for problem in error.errors():
            name = problem["loc"][0] if problem["loc"] else ""
            # What a section says of one within it, beside others of its values, is found here alone.
            of_both = len(problem["loc"]) == 1 and problem["type"] == "value_error"
            if name in nested and name in values and not of_both:
                continue
            # The members of a union stand in the place too; one line for the value as a whole.
            depth = (
                1
                if problem["loc"][1:] and _is_member(problem["loc"][1], values, name)
                else len(problem["loc"])
            )
            at = where
            for part in problem["loc"][:depth]:
                at = place(at, part)
            places.setdefault(at, []).append(problem)
        for at, problems in places.items():
            if at not in mistakes.places:
                mistakes.add(at, _phrase(at, problems, values, section))


def _is_member(part: Any, values: Plain, name: Any) -> bool:
    """Whether a part of a problem's place is a member of a union, not a key of the value."""
    given = values.get(name)
    return isinstance(part, str) and not (isinstance(given, dict) and part in given)


def _no_such(key: Any, names: Iterable[str]) -> str:
    offered = [name for name in names if name != "summary"]
    return f"no such option; {near(str(key), offered, otherwise='it has {}.')}"


def _phrase(at: str, problems: list[Any], values: dict[str, Any], section: type[BaseModel]) -> str:
    first = problems[0]
    if first["type"] == "extra_forbidden":
        return _no_such(first["loc"][-1], section.model_fields)
    if first["type"] == "missing":
        return f"has no value; give {at}=..."
    if first["type"] == "dict_type" and (meant := instead(at, first["input"])) is not None:
        return meant
    reasons = ", or ".join(dict.fromkeys(reason(problem) for problem in problems))
    got = values[first["loc"][0]] if len(problems) > 1 else first["input"]
    if first["type"] == "value_error" and (got is None or isinstance(got, dict)):
        return f"{reasons}."
    if isinstance(got, str) and first["type"] == "list_type":
        return f"{reasons} (got {got!r}); write '{at}=[{got}]'."
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
                yield from walk(place(where, key), value)

    yield from walk("", plain)
