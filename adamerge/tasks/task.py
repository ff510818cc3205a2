"""A task: its name, classes, prompt templates and the source of its images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


class Source(ABC):
    """Where a task's pictures come from."""

    class_names: tuple[str, ...] | None = None

    @abstractmethod
    def images(self, split: str) -> Sequence: ...

    @abstractmethod
    def labels(self, split: str) -> np.ndarray | None: ...


@dataclass(frozen=True)
class Task:
    name: str
    classes: tuple[str, ...] | None
    templates: tuple[str, ...]
    source: Source

    def prompts(self) -> list[list[str]]:
        return [[t.format(c) for t in self.templates] for c in self.classes or ()]
