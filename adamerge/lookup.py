"""Finds what a package offers by its name alone, so that a new part needs an entry in no list."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def by_name(package: str) -> Callable[[str], Any]:
    """A package's `__getattr__`: the class or function that one of its modules defines under a name.

    Modules are imported in the alphabet's order when a name is first asked for, up to the one that defines it.
    """

    def find(name: str) -> Any:
        if not name.startswith("_"):
            for module in pkgutil.iter_modules(sys.modules[package].__path__, f"{package}."):
                found = vars(import_module(module.name)).get(name)
                if getattr(found, "__module__", None) == module.name:
                    return found
        raise AttributeError(f"module '{package}' has no attribute '{name}'")

    return find
