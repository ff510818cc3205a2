"""Who may import whom: every room knows those below it only, and nothing heavy stands where it must not."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import adamerge

PACKAGE = Path(adamerge.__file__).parent

# From the ground up. A room may import those in the lines above its own.
ROOMS = (
    ("errors", "cache_folder", "cache_locks", "memory", "stopping", "console", "lookup", "hints", "hardware"),
    ("files", "progress", "architecture", "picture_fit"),
    ("digests",),
    ("merging",),
    ("rules", "objectives"),
    ("rounds",),
    ("checkpoints",),
    ("models", "tasks", "tracking"),
    ("settings", "methods", "statistics", "routing"),
    ("report", "evaluation"),
    ("training",),
    ("export", "bench"),
    ("runs",),
    ("diagnosis",),
    ("commands",),
    ("__main__",),
)
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
# They are read by `compare`, `--help` and completion, which answer within a second.
LIGHT = (
    *("report", "tracking", "settings", "errors", "files", "console", "progress", "stopping", "digests"),
    "architecture",
    "hints",
    "hardware",
)
HEAVY = ("torch", "pytorch_lightning", "open_clip", "torchvision")
# The rooms that know Lightning, and Hydra's own config object.
ONLY = {
    "pytorch_lightning": {"training"},
    "hydra": {"commands"},
}
CONFIGS = ("DictConfig", "ListConfig")


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(file: Path, whole: bool = True) -> Iterator[str]:
    """The modules that a file imports; without `whole` only when it is imported itself."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if whole else _at_import(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: say the whole name of a module"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _at_import(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
            yield from _at_import(child)


def room_imported(name: str) -> str | None:
    """The room of adamerge's that a module name lies in; None of other packages and of the package itself."""
    first, *rest = name.split(".")
    return rest[0] if first == "adamerge" and rest and rest[0] in LEVEL else None


def test_every_room_has_its_place() -> None:
    rooms = {room_of(file) for file in files()} - {"__init__"}
    assert rooms == set(LEVEL)


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_down(file: Path) -> None:
    room = room_of(file)
    if room == "__init__":
        return
    up = [
        name
        for name in imports(file)
        if (other := room_imported(name)) is not None and other != room and LEVEL[other] >= LEVEL[room]
    ]
    assert not up, f"{file}: {', '.join(up)} lies above"


@pytest.mark.parametrize("package", ONLY)
def test_a_framework_stays_in_its_room(package: str) -> None:
    knowing = {room_of(file) for file in files() if any(n.split(".")[0] == package for n in imports(file))}
    assert knowing <= ONLY[package] | {"__init__"}


def test_a_config_object_stops_at_the_entry() -> None:
    """What Hydra composes becomes typed settings in `commands`; no room below sees it."""
    seeing = {room_of(file) for file in files() if any(n.split(".")[-1] in CONFIGS for n in imports(file))}
    assert seeing <= {"commands"}


@pytest.mark.parametrize("room", LIGHT)
def test_what_answers_at_once_imports_nothing_heavy(room: str) -> None:
    heavy = {
        f"{file.name}: {name}"
        for file in files()
        if room_of(file) == room
        for name in imports(file, whole=False)
        if name.split(".")[0] in HEAVY
    }
    assert not heavy


def test_an_arrow_up_is_seen(tmp_path: Path) -> None:
    """The walk itself: what it must find, it finds, also within a function."""
    file = tmp_path / "up.py"
    file.write_text("def f():\n    from adamerge.commands.train import run\n    import torch\n")
    assert list(imports(file)) == ["adamerge.commands.train.run", "torch"]
    assert list(imports(file, whole=False)) == []
    assert LEVEL["commands"] > LEVEL["report"]
