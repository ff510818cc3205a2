"""A model and an expert whose logits are their features, for objectives by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from torch import Tensor


class Identity:
    """A head whose logits are the features."""

    def logits(self, features: Tensor) -> Tensor:
        return features


@dataclass
class Model:
    pool: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(heads={"t": Identity()}))

    def classify(self, features: Tensor, task: str) -> Tensor:
        return features


def value(objective: Any, own: Tensor, expert: Tensor) -> Tensor | None:
    """The loss of logits (n, classes) of the model and of the expert."""
    found: Tensor | None = objective(Model(), (own,), "t", (expert,))
    return found


def known(objective: Any, own: Tensor, expert: Tensor) -> Tensor:
    found = value(objective, own, expert)
    assert found is not None
    return found
