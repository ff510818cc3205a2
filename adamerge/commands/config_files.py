"""`--config my.yaml`: a whole command line in a file. Its keys are read as if they were typed; what is typed wins.

method: surgery
suite.tasks: [digits, signs]
method.schedule: {steps: 100}
trainer: {accelerator: cpu}    # options of a section below its name
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from adamerge.errors import ConfigError
from adamerge.settings.commands import SETTINGS
from adamerge.settings.sections import Section

FLAG = "--config"


def with_config(command: str, words: Sequence[str]) -> list[str]:
    """The words with those of the file that `--config <file>` names before them; without such a flag as they are.

    Raises:
        ConfigError: the file cannot be read, or says nothing that could be typed.
    """
    given, typed = _taken_out(words)
    if given is None:
        return list(words)
    named = {_key(word) for word in typed if not word.startswith("-")}
    said = [word for word in _words_of(Path(given).expanduser(), command) if _key(word) not in named]
    return [*said, *typed]


def _taken_out(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """(the file, the other words)."""
    files: list[str] = []
    others: list[str] = []
    left = iter(words)
    for word in left:
        if word == FLAG:
            if (value := next(left, None)) is None:
                raise ConfigError(f"{FLAG} needs a file: {FLAG} my.yaml.")
            files.append(value)
        elif word.startswith(f"{FLAG}="):
            files.append(word.partition("=")[2])
        else:
            others.append(word)
    if len(files) > 1:
        raise ConfigError(f"{FLAG} takes one file, not {' and '.join(files)}.")
    return (files[0] if files else None), others


def _key(word: str) -> str:
    """What an override is of."""
    return word.partition("=")[0].lstrip("+~")


def _words_of(path: Path, command: str) -> list[str]:
    try:
        content = OmegaConf.load(path)
    except OSError as error:
        raise ConfigError(f"{FLAG} {path} cannot be read: {error.strerror}.") from error
    except (YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise ConfigError(f"{FLAG} {path} is no YAML: {error}") from error
    if not isinstance(content, DictConfig):
        raise ConfigError(f"{FLAG} {path} should hold keys as on the command line, such as method: surgery.")
    plain: Any = OmegaConf.to_container(content, resolve=False)
    if "defaults" in plain:
        raise ConfigError(
            f"{FLAG} {path}: defaults is for a YAML of a config group (--config-dir, conf.d).\n"
            f"  Here a choice is written as on the command line: method: surgery."
        )
    return [word for key, value in plain.items() for word in _overrides(str(key), value, SETTINGS[command])]


def _overrides(key: str, value: Any, kind: type[Section]) -> Iterator[str]:
    """A key with its value as words; options below a section's name, or below a component's, are words of their own."""
    below = _kind_at(kind, key.split("."))
    if isinstance(value, Mapping) and value and below is not None:
        for name, own in value.items():
            yield from _overrides(f"{key}.{name}", own, kind)
    else:
        yield f"{'++' if _is_open(kind, key.split('.')) else ''}{key}={_written(value)}"


def _kind_at(kind: Any, path: Sequence[str]) -> Any:
    """The section at a dotted place, or dict for a mapping of any keys; None where a mapping is one value."""
    for part in path:
        if kind is dict:
            continue
        field = kind.model_fields.get(part)
        if field is None:
            return dict if kind.model_config.get("extra") == "allow" else None
        members = _members(field.annotation)
        if len(members) != 1:
            return None
        kind = (
            members[0]
            if isinstance(members[0], type) and issubclass(members[0], Section)
            else _plain(members[0])
        )
        if kind is None:
            return None
    return kind


def _members(annotation: Any) -> list[Any]:
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    members = typing.get_args(annotation) if union else (annotation,)
    return [member for member in members if member is not type(None)]


def _plain(annotation: Any) -> type[dict] | None:
    """dict where that is what is annotated."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _plain(typing.get_args(annotation)[0])
    return dict if typing.get_origin(annotation) is dict else None


def _is_open(kind: type[Section], path: Sequence[str]) -> bool:
    """Whether the place lies below a mapping of any keys: what is named there may be new."""
    return len(path) > 1 and _kind_at(kind, path[:-1]) is dict


def _written(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, str):
        return QuotedString(text=value, quote=Quote.double).with_quotes()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_written(own)}" for key, own in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, value)) + "]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return repr(value)
