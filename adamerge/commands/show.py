"""`show methods|rules|...` lists a config group, `show method/<name>` prints a YAML. Reads only the YAMLs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from adamerge.console import plain_console
from adamerge.errors import ConfigError
from adamerge.hints import near
from adamerge.settings.groups import choices, static_rules, words_of_rule
from adamerge.settings.inherited import first_comment, inherited
from adamerge.settings.paths import conf_dir

_WIDE = 160  # columns of a terminal from which on a wide table is easy to read
_COLUMNS = ("summary", "tasks", "needs", "trains", "memory", "paper")


def run(words: list[str]) -> None:
    """Print a table or a YAML.

    Raises:
        ConfigError: an unknown group or name, with the near ones.
    """
    groups = _groups()
    if words in (["-h"], ["--help"]) or len(words) != 1:
        usage = f"show takes one of {', '.join(groups)}, or a name such as method/adamerging_layerwise."
        if len(words) != 1:
            raise ConfigError(usage)
        sys.stdout.write(f"{usage}\n")
        return
    listed, _, name = words[0].removesuffix(".yaml").partition("/")
    by_name = {**groups, **{folder.name: folder for folder in groups.values()}}
    if listed not in by_name:
        raise ConfigError(f"There is no '{listed}' to show; {near(listed, groups)}")
    if name:
        _print_yaml(by_name[listed], name)
    else:
        _print_list(by_name[listed])


def _groups() -> dict[str, Path]:
    """The config groups by their plural."""
    folders = sorted(
        f for f in conf_dir().iterdir() if any(f.glob("*.yaml")) and f.name not in ("hydra", "local")
    )
    return {f.name if f.name.endswith("s") else f"{f.name}s": f for f in folders}


def _print_yaml(folder: Path, name: str) -> None:
    files = choices(folder.name)
    rules = static_rules() if folder.name == "method" else {}
    if name not in {**files, **rules}:
        raise ConfigError(f"There is no {folder.name} '{name}'; {near(name, [*files, *rules])}")
    if name in rules:
        text = f"# method=static rule={name}: nothing is trained. conf/rule/{name}.yaml:\n{rules[name].read_text()}"
    else:
        text = files[name].read_text()
    if sys.stdout.isatty():
        plain_console().print(Syntax(text, "yaml", background_color="default"))
    else:
        sys.stdout.write(text)  # byte by byte the file, whatever the width


def _print_list(folder: Path) -> None:
    rows = {name: _described(path) for name, path in choices(folder.name).items()}
    if folder.name == "method":
        nothing = {key: rows["static"][key] for key in ("needs", "trains", "memory")}
        rows |= {name: {**nothing, **words_of_rule(path)} for name, path in static_rules().items()}
        rows = dict(sorted(rows.items()))
    columns = [column for column in _COLUMNS if any(row.get(column) for row in rows.values())]
    console = plain_console()
    if len(columns) > 3 and console.width < _WIDE:
        for name, row in rows.items():
            _print_entry(console, name, row, columns)
        return
    table = Table(box=None, pad_edge=False)
    for column in ("name", *columns):
        table.add_column(column, no_wrap=column == "name", overflow="fold")
    for name, row in rows.items():
        table.add_row(name, *(Text(_words(row.get(column))) for column in columns))
    console.print(table)


def _print_entry(console: Console, name: str, row: dict[str, Any], columns: list[str]) -> None:
    """One row of a table that is too wide for the terminal, as a few lines."""
    first, *others = columns
    console.print(Text.assemble((name, "bold"), "  ", _words(row.get(first))))
    lines = Table.grid(padding=(0, 2))
    for column in others:
        if words := _words(row.get(column)):
            lines.add_row("", Text(column, style="dim"), Text(words))
    console.print(lines)


def _described(path: Path) -> dict[str, Any]:
    """A YAML's top level; without a summary, its first comment serves."""
    content = inherited(path)
    if not content.get("summary"):
        content["summary"] = first_comment(path)
    return content


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value in (None, "???") else str(value)
