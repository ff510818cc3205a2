"""Names of classes and splits: their order, and how they are told in messages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal

from adamerge.hints import near

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


def all_numbers(names: Iterable[str]) -> bool:
    """Whether each is a number, such as the folders "0" to "11"."""
    return all(_NUMBER.fullmatch(name) for name in names)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """The different names in the order of their labels: by value where all are numbers ("2" before "10"), else by
    their text, as torchvision has it for both."""
    different = set(names)
    if all_numbers(different):
        return tuple(sorted(different, key=lambda name: (Decimal(name), name)))
    return tuple(sorted(different))


def listed(names: Sequence[str], most: int = 12) -> str:
    """The first of them, and how many there are."""
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")


def suggest(name: str, known: Iterable[str]) -> str:
    """The nearest known name for an error text, else the known names."""
    choices = list(known)
    all_of_them = f"there are: {listed(choices)}.".replace("{", "{{").replace("}", "}}")
    return near(name, choices, otherwise=all_of_them, most=1)
