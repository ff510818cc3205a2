"""Class names and prompt templates of the papers' classification tasks (prompts.yaml)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from adamerge.errors import ConfigError
from adamerge.tasks.names import suggest

_FILE = Path(__file__).with_suffix(".yaml")


@dataclass(frozen=True)
class Prompts:
    """What the zero-shot head of a task is made of.

    Attributes:
        classes: the words of each class, in the order of the dataset's labels.
        templates: prompts with "{}" in the class's place.
        names: the data's own name of each class.
    """

    classes: tuple[str, ...]
    templates: tuple[str, ...]
    names: tuple[str, ...]


def prompts(task: str) -> Prompts:
    """Those of a task.

    Raises:
        ConfigError: an unknown task.
    """
    known = _read()
    if task not in known:
        raise ConfigError(f"There are no prompts for a task '{task}'; {suggest(task, known)}")
    entry = known[task]
    classes = tuple(entry["classes"])
    return Prompts(classes, tuple(entry["templates"]), tuple(entry.get("names", classes)))


def known_tasks() -> tuple[str, ...]:
    return tuple(_read())


@cache
def _read() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return content
