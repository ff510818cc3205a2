"""`<command> --help`: every choice and option with its default and the comment that its YAML has on it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from adamerge.commands import COMMANDS
from adamerge.console import plain_console
from adamerge.settings.groups import choices
from adamerge.settings.paths import conf_dir

ENVIRONMENT = {
    "ADAMERGE_OUTPUTS": "where run folders are written; ./outputs where it is not set",
    "ADAMERGE_CACHE": "what is computed once and kept: heads, recordings, experts made here",
    "ADAMERGE_DATA": "the folder of a suite's data, as suite.data",
    "ADAMERGE_BASE": "the base encoder's file of checkpoints=foundation",
    "ADAMERGE_CHECKPOINTS": "the folder of checkpoints, as checkpoints.root",
    "ADAMERGE_MODULES": "folders with Python modules of your own, which _target_ may name",
}
_FLAGS = {
    "-m": "run every combination of comma-separated values",
    "--cfg job": "print the config that the words make, and run nothing",
    "--config <file>": "a YAML with these choices and options as keys; what is typed wins",
    "--config-dir <folder>": "YAMLs of your own, in the folders method/, suite/, rule/ and so on; otherwise those in "
    "conf.d of the working directory, where modules for _target_ may lie as well",
}
_SETTLED = ("hydra_settings", "_self_")
_DESCRIPTIONS = ("summary", "paper", "needs", "trains", "memory")
_ELSE = re.compile(r"\$\{oc\.(?:select|env):([^,${}]+),([^${}]*)\}")


@dataclass(frozen=True)
class Line:
    """An option, or a choice of a group: its name, its value in the YAML, and what the YAML says of it."""

    name: str
    value: str
    comment: str


@dataclass
class Explained:
    """What a command's YAML and those it is based on say, in their order; the last word on a name counts."""

    head: list[str] = field(default_factory=list)
    groups: dict[str, Line] = field(default_factory=dict)
    options: dict[str, Line] = field(default_factory=dict)


def explain(command: str, words: Sequence[str] = ()) -> None:
    """Print it.

    Args:
        words: overrides; the options of every group that is chosen in them are explained as well.
    """
    folder = conf_dir()
    found = explained(folder, str(COMMANDS[command].config))
    chosen = dict(word.split("=", 1) for word in words if "=" in word)
    console = plain_console()
    said = [line for line in found.head if not line.startswith("python -m")]
    console.print(Text.assemble((f"adamerge {command}", "bold"), f": {' '.join(said)}"))
    if examples := [line for line in found.head if line.startswith("python -m")]:
        _block(console, "Examples", Text("\n".join(examples)))
    _table(console, "Choices, as group=name", found.groups.values(), chosen)
    _table(console, "Options, as key=value", found.options.values(), chosen)
    for group, name in chosen.items():
        if group in found.groups and (path := choices(group).get(name)) is not None:
            below = explained(path.parent, name).options
            words_of = [below[key].value for key in _DESCRIPTIONS if key in below]
            lines = [
                Line(f"{group}.{o.name}", o.value, o.comment)
                for o in below.values()
                if o.name not in ("name", *_DESCRIPTIONS)
            ]
            _table(console, f"Options of {group}={name}, as key=value", lines, {})
            console.print(Padding(Text("\n".join(words_of)), (1, 0, 0, 2)))
    if found.groups:
        first = next(iter(found.groups))
        hint = f"The options of a choice: adamerge {command} {first}=<name> --help, or adamerge show {first}/<name>."
        console.print(Padding(Text(hint), (1, 0, 0, 0)))
    _table(console, "Flags", [Line(flag, "", said) for flag, said in _FLAGS.items()], {})
    _table(
        console,
        "Environment variables",
        [Line(name, os.environ.get(name, ""), said) for name, said in ENVIRONMENT.items()],
        {},
    )


def explained(folder: Path, config: str) -> Explained:
    """What `config` and the configs it is based on say."""
    own = read(folder / f"{config}.yaml")
    found = Explained()
    for base in own.groups.values():
        # An entry of the defaults without a value is a config beside this one, which it is based on.
        if not base.value and base.name not in _SETTLED:
            below = explained(folder, base.name)
            found.groups |= below.groups
            found.options |= below.options
    for line in own.groups.values():
        if line.value:
            known = found.groups.get(line.name)
            comment = line.comment or (known.comment if known else "")
            found.groups[line.name] = Line(line.name, line.value, comment)
    found.options |= own.options
    found.head = own.head
    return found


def read(path: Path) -> Explained:
    """What one YAML says: the comment at its head, its defaults, and its options by dotted name."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    found = Explained()
    for line in lines:
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            found.head.append(line.removeprefix("#").strip())
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        return found
    for key, value in root.value:
        if key.value == "defaults":
            for entry in value.value:
                found.groups |= {said.name: said for said in _default(entry, lines)}
        else:
            found.options |= {said.name: said for said in _options(key.value, key, value, lines)}
    return found


def _default(entry: yaml.Node, lines: list[str]) -> Iterator[Line]:
    if isinstance(entry, yaml.MappingNode):
        for key, value in entry.value:
            name = str(key.value).removeprefix("override ").removeprefix("optional ")
            yield Line(name.partition("@")[0].removeprefix("/"), _shown(value), _comment(value, lines))
    else:
        yield Line(str(entry.value), "", "")


def _options(name: str, key: yaml.Node, value: yaml.Node, lines: list[str]) -> Iterator[Line]:
    if isinstance(value, yaml.MappingNode) and value.value and not value.flow_style:
        for below, node in value.value:
            yield from _options(f"{name}.{below.value}", below, node, lines)
    else:
        yield Line(name, _shown(value), _comment(value, lines))


def _shown(node: yaml.Node) -> str:
    """A value as one would type it; `${oc.select:suite.steps,500}` reads "500, or suite.steps"."""
    if isinstance(node, yaml.ScalarNode):
        text = "null" if node.value == "" else str(node.value)
        text = text.replace("${outputs:}", "outputs").replace("${cache:}", "$ADAMERGE_CACHE")
        return _ELSE.sub(r"\2, or \1", text)
    plain: Any = yaml.SafeLoader("").construct_object(node, deep=True)
    return yaml.safe_dump(plain, default_flow_style=True, width=10_000).strip()


def _comment(node: yaml.Node, lines: list[str]) -> str:
    """What stands behind a value, and in the lines of nothing but a comment right below it that go on with it."""
    at = node.end_mark.line
    if node.end_mark.column == 0:  # a block ends where the next line begins
        return ""
    _, mark, said = lines[at][node.end_mark.column :].partition("# ")
    if not mark:
        return ""
    told = [said.strip()]
    for line in lines[at + 1 :]:
        if not line.startswith("# "):
            break
        told.append(line.removeprefix("# ").strip())
    return " ".join(told)


def _block(console: Console, title: str, body: Text | Table) -> None:
    console.print(Text(f"\n{title}", style="bold"))
    console.print(Padding(body, (0, 0, 0, 2)))


def _table(console: Console, title: str, lines: Any, chosen: dict[str, str]) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(max_width=28, overflow="fold")
    table.add_column(overflow="fold")
    rows = [Line(line.name, chosen.get(line.name, line.value), line.comment) for line in lines]
    for line in rows:
        value = "(must be given)" if line.value == "???" else line.value
        table.add_row(Text(line.name), Text(value, style="cyan"), Text(line.comment))
    if rows:
        _block(console, title, table)
