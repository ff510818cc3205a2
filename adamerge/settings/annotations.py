"""Checks values against type annotations, as far as a YAML could hold such values."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from pydantic import ConfigDict, Strict, TypeAdapter, ValidationError

_PLAIN = {
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid string": "text",
    "a valid boolean": "true or false",
    "a valid list": "a list",
    "a valid tuple": "a list",
    "a valid dictionary": "a group of options",
}
_SCALARS = (bool, int, float, str, type(None), None, Path)


class Unknown:
    """The annotation of what no YAML can hold, or of what is not annotated."""


def simple_annotation(annotation: Any, scope: Mapping[str, Any]) -> Any:
    """What of an annotation a YAML value can fit: scalars, literals, lists, tuples and mappings of them.

    The members of a union that no YAML can give (a tensor, say) are dropped; `Unknown` where nothing is left.

    Args:
        annotation: a type, or its text under `from __future__ import annotations`.
        scope: the names that the text may use.
    """
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, dict(scope))  # the text is source code of an installed module
        except (NameError, TypeError, AttributeError):
            return Unknown
    if isinstance(annotation, list):  # the parameters of a Callable
        return Unknown
    if annotation in _SCALARS or typing.get_origin(annotation) is Literal:
        return annotation
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        members = [m for m in (simple_annotation(a, scope) for a in inner) if m is not Unknown]
        return Union[tuple(members)] if members else Unknown  # noqa: UP007 - made at run time
    parts = tuple(part if part in (..., Any) else simple_annotation(part, scope) for part in inner)
    if Unknown in parts or not parts:
        return {list: list, tuple: Annotated[tuple, Strict(False)], dict: dict}.get(annotation, Unknown)
    return _container(origin, parts)


def _container(origin: Any, parts: tuple[Any, ...]) -> Any:
    generics: dict[Any, Any] = {list: list, Sequence: list, tuple: tuple, dict: dict, Mapping: dict}
    if (generic := generics.get(origin)) is None:
        return Unknown
    # YAML has no tuples: a list stands for one.
    return Annotated[generic[parts], Strict(False)] if generic is tuple else generic[parts]


def type_problem(value: Any, annotation: Any) -> str | None:
    """What is wrong with a value of this annotation, or None. Strict: no truth value counts as a number."""
    if annotation is Unknown:
        return None
    try:
        TypeAdapter(annotation, config=ConfigDict(strict=True)).validate_python(_paths(value, annotation))
    except ValidationError as error:
        return describe(error.errors(), value)
    return None


def _paths(value: Any, annotation: Any) -> Any:
    """YAML has no paths: text stands for them."""
    wants_path = annotation is Path or Path in typing.get_args(annotation)
    return Path(value) if wants_path and isinstance(value, str) else value


def describe(problems: Sequence[Any], value: Any) -> str:
    """Pydantic's problems with one value as a phrase."""
    reasons = dict.fromkeys(reason(problem) for problem in problems)
    return f"{', or '.join(reasons)} (got {value!r})."


def reason(problem: Mapping[str, Any]) -> str:
    """Pydantic's reason, as the end of a sentence that starts with the place."""
    text = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    for valid, plain in _PLAIN.items():
        text = text.replace(valid, plain)
    return text
