"""The methods page, from the YAMLs and the classes' docstrings; `make docs` writes it to docs/methods.md."""

from __future__ import annotations

import csv
import inspect
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from adamerge.settings.groups import NO_RULE, choices
from adamerge.settings.inherited import first_comment, inherited

_FACTS = {"paper": "paper", "needs": "needs", "trains": "trained", "memory": "memory"}
_TABLE = Path("docs") / "mini_table.csv"


def methods_page(measured: dict[str, dict[str, str]]) -> str:
    """Markdown: every YAML below the class that it configures.

    Args:
        measured: by method, the row of docs/mini_table.csv.
    """
    by_class: dict[str, list[str]] = {}
    entries = {name: inherited(path) for name, path in choices("method").items()}
    for name, entry in entries.items():
        by_class.setdefault(entry["model"]["_target_"], []).append(name)
    parts = [
        "# Methods\n",
        "Made by `make docs` from conf/method/*.yaml, the classes' docstrings and docs/mini_table.csv. "
        "`python -m adamerge show method/<name>` prints a YAML; every number in it is an option.\n",
    ]
    for target, names in sorted(by_class.items(), key=lambda item: item[0].rpartition(".")[2]):
        parts.append(f"## {target.rpartition('.')[2]}\n\n{_described(target)}\n")
        parts += [_entry(name, entries[name], measured.get(name)) for name in names]
    return "\n".join([*parts, _coefficients(), _objectives(), *_rules(measured), *_posts()])


def _coefficients() -> str:
    """One line for each way to learn merging coefficients beside a task-specific part."""
    return (
        "# Coefficients\n\nFrom conf/coefficients/*.yaml. Surgery, SurgeryV2 and Tinting have a task-specific part; it "
        "stands on merging coefficients: `train method=surgery coefficients=layerwise` learns both jointly, with "
        "`method.model.coefficients.<option>=...` for theirs.\n\n"
    ) + _lines("coefficients")


def _objectives() -> str:
    """One line for each loss."""
    return (
        "# Objectives\n\nFrom conf/objective/*.yaml. A method names its own; `train method=surgery objective=entropy` "
        "gives it another, with every method that has the parts for it, `-m objective=entropy,agreement` compares "
        "them, and `method.objective.<option>=...` sets an option (`show objective/<name>` prints them). `labels` "
        "needs `+method.labels=<training pictures per task>` where a method has none.\n\n"
    ) + _lines("objective")


def _lines(group: str) -> str:
    """A line for each YAML of a group: its name and its first comment."""
    return "".join(f"- `{name}`: {first_comment(path)}\n" for name, path in choices(group).items())


def _rules(measured: dict[str, dict[str, str]]) -> Iterator[str]:
    yield (
        "# Static rules\n\nFrom conf/rule/*.yaml. `merge rule=<name>` merges with one, `train rule=<name>` puts a "
        "method over it, and `method=<name>` is the merge alone among the methods of a sweep. `show rule/<name>` "
        "prints a YAML.\n"
    )
    described: set[str] = set()
    entries = {name: inherited(path) for name, path in choices("rule").items() if name != NO_RULE}
    methods = choices("method")
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["_target_"].rpartition(".")[2]):
        target = entry["_target_"]
        if target not in described:
            described.add(target)
            yield f"## {target.rpartition('.')[2]}\n\n{_described(target)}\n"
        yield _entry(name, entry, None if name in methods else measured.get(name))


def _posts() -> Iterator[str]:
    yield (
        "# Post-rules\n\nFrom conf/post/*.yaml. `post=<name>` changes the merge of any rule that gives one encoder, "
        "alone or below a method, and `post=[lines,svc]` is one after the other; options are `post.<name>.<option>`. "
        "They give as many vectors as the rule, with its coefficient (FeatCal one vector), so that coefficients are "
        "learned on them as on the rule's, from where their merge stands. `origin=average` takes every rule's and "
        "method's task vectors about the experts' mean.\n"
    )
    for name, path in choices("post").items():
        entry = inherited(path)
        yield f"## {name}\n\n{first_comment(path)}.\n\n{_described(entry['_target_'])}\n"
        if entry.get("images"):
            yield f"{_images(entry)}\n"


def _described(target: str) -> str:
    """What the class says of itself, and what its file says of the method."""
    where, _, name = target.rpartition(".")
    found = getattr(import_module(where), name)
    texts = [inspect.getdoc(import_module(found.__module__)), inspect.getdoc(found)]
    prose = [re.split(r"\n\n?(?:Args|Raises|Attributes):", text or "")[0].strip() for text in texts]
    options = re.search(r"Args:\n(.*?)(?:\n\n|\nRaises:|\Z)", texts[1] or "", re.DOTALL)
    listed = _options(options.group(1)) if options else ""
    return "\n\n".join(dict.fromkeys(part for part in (*prose, listed) if part))


def _options(block: str) -> str:
    """The docstring's arguments as a list, without the pool, which every method has."""
    lines: list[str] = []
    for line in inspect.cleandoc(block).splitlines():
        if match := re.match(r"(\w+): (.*)", line):
            lines.append(f"- `{match[1]}`: {match[2]}")
        elif lines:
            lines[-1] += f" {line.strip()}"
    return "\n".join(line for line in lines if not line.startswith("- `pool`"))


def _entry(name: str, entry: dict[str, Any], row: dict[str, str] | None) -> str:
    lines = [f"### {name}\n", f"{entry.get('summary', '')}\n"]
    lines += [f"- {word}: {entry[key]}" for key, word in _FACTS.items() if entry.get(key)]
    if entry.get("images"):
        lines.append(_images(entry))
    if entry.get("labels"):
        lines.append(f"- labels: {entry['labels']} training pictures per task")
    if row:
        spread = f" ± {row['sd']}" if row["sd"] else ""
        cost = f", adapted in {row['seconds']} s, {row['peak_memory_gib']} GiB" if row["seconds"] else ""
        lines.append(f"- on `mini`: {row['average']}{spread} %{cost}")
    return "\n".join(lines) + "\n"


def _images(entry: dict[str, Any]) -> str:
    return f"- images: {entry['images']} of each task's {entry['adapt_on']} split"


def read_measured(path: Path) -> dict[str, dict[str, str]]:
    """docs/mini_table.csv by method."""
    with path.open(encoding="utf-8") as file:
        return {row["method"]: row for row in csv.DictReader(file)}


if __name__ == "__main__":
    sys.stdout.write(methods_page(read_measured(_TABLE)))
