"""The code that makes a run's numbers: adamerge by its version, modules of the user's own by their source."""

from __future__ import annotations

import ast
import hashlib
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from adamerge import __version__
from adamerge.settings.components import ALLOWED, make_own_importable
from adamerge.settings.paths import PACKAGE


def own_code(settings: Any) -> dict[str, str]:
    """{"adamerge": version} and {module: sha256 of its source} of every module that a `_target_` outside the package
    names, and of what those import from beside them. Installed libraries are not followed."""
    make_own_importable()
    found: dict[str, str] = {}
    waiting = [target.rpartition(".")[0] for target in _targets(settings) if not target.startswith(ALLOWED)]
    named = {name.partition(".")[0] for name in waiting}
    while waiting:
        name = waiting.pop()
        file = None if name in found else _file(name, named)
        if file is not None:
            source = file.read_bytes()
            found[name] = hashlib.sha256(source).hexdigest()
            package = name if file.name == "__init__.py" else name.rpartition(".")[0]
            waiting += _imports(source, package)
    return {"adamerge": __version__, **found}


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield str(node["_target_"])
        for value in node.values():
            yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)


def _file(name: str, named: set[str]) -> Path | None:
    """The Python file of a module of the user's; None for a library's and for what is no module."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or top == "adamerge":
        return None
    try:
        spec = find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    file = Path(spec.origin)
    installed = any(folder in file.parents for folder in _libraries()) or PACKAGE in file.parents
    return file if top in named or not installed else None


def _libraries() -> set[Path]:
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = [sysconfig.get_path(kind) for kind in kinds]
    return {Path(folder) for folder in (*folders, *site.getsitepackages(), site.getusersitepackages())}


def _imports(source: bytes, package: str) -> Iterator[str]:
    """The modules that a source names, wherever in it: also what `from x import y` might mean by y."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
