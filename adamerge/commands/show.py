"""`show methods|rules|suites|backbones|experiments`, or `show method/adamerging_layerwise`: reads only the YAMLs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table

from adamerge.errors import ConfigError
from adamerge.settings.mistakes import near
from adamerge.settings.paths import conf_dir

_COLUMNS = {"method": ("summary", "needs", "paper"), "rule": ("summary", "paper")}


def run(words: list[str]) -> None:
    if len(words) != 1 or words[0] in ("-h", "--help"):
        raise ConfigError(f"show takes one word: {', '.join(f'{g}s' for g in _groups())}, or <group>/<name>.")
    group, _, name = words[0].partition("/")
    group = group if group in _groups() else group.removesuffix("s")
    if group not in _groups():
        raise ConfigError(f"There is no '{words[0]}' to show; {near(words[0], [f'{g}s' for g in _groups()])}")
    if name:
        _print_yaml(group, name)
    else:
        _print_list(group)


def _groups() -> list[str]:
    return sorted(f.name for f in conf_dir().iterdir() if f.is_dir() and f.name != "hydra" and any(f.glob("*.yaml")))


def _print_yaml(group: str, name: str) -> None:
    path = conf_dir() / group / f"{name}.yaml"
    if not path.exists():
        known = [p.stem for p in (conf_dir() / group).glob("*.yaml")]
        raise ConfigError(f"There is no {group} '{name}'; {near(name, known)}")
    Console().print(Syntax(path.read_text(), "yaml", background_color="default"))


def _print_list(group: str) -> None:
    columns = _COLUMNS.get(group, ("summary",))
    table = Table(box=None, pad_edge=False)
    for column in ("name", *columns):
        table.add_column(column, no_wrap=column == "name", overflow="fold")
    for path in sorted((conf_dir() / group).glob("*.yaml")):
        content = _inherited(path)
        table.add_row(path.stem, *(str(content.get(column) or "") for column in columns))
    Console().print(table)


def _inherited(path: Path) -> dict[str, Any]:
    """The top level of a YAML, with what it takes from the YAMLs beside it that it is based on."""
    content = yaml.safe_load(path.read_text()) or {}
    merged: dict[str, Any] = {}
    for default in content.get("defaults") or ():
        if isinstance(default, str) and default != "_self_" and (path.parent / f"{default}.yaml").exists():
            merged |= _inherited(path.parent / f"{default}.yaml")
    return merged | {key: value for key, value in content.items() if key != "defaults"}
