"""The choices of a config group, read from the folders without Hydra."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adamerge.settings.inherited import inherited
from adamerge.settings.paths import conf_dir

NO_RULE = "none"


def yamls(group: Path) -> list[Path]:
    """The files of a config group that can be chosen; `_base` and the like are for other YAMLs to begin with."""
    return sorted(path for path in group.glob("*.yaml") if not path.stem.startswith("_"))


def choices(group: str, *folders: Path) -> dict[str, Path]:
    """{name: YAML} of a config group; without `folders` of those that ship. Of two YAMLs the first folder's counts."""
    found: dict[str, Path] = {}
    for folder in folders or (conf_dir(),):
        found = {path.stem: path for path in yamls(folder / group)} | found
    return dict(sorted(found.items()))


def static_rules(*folders: Path) -> dict[str, Path]:
    """{name: YAML} of the rules that `method=` takes too: the rule's own merge, nothing trained.

    A rule with a method of its own name (doge_am) is that method's; `none` is task arithmetic, which has a name.
    """
    methods = choices("method", *folders)
    return {
        name: path
        for name, path in choices("rule", *folders).items()
        if name not in methods and name != NO_RULE
    }


def method_names(*folders: Path) -> list[str]:
    """Everything that `method=` takes."""
    return sorted({*choices("method", *folders), *static_rules(*folders)})


def words_of_rule(path: Path) -> dict[str, Any]:
    """What a rule's YAML says for people, as a method that trains nothing says it."""
    content = inherited(path)
    words = {key: content.get(key) for key in ("summary", "paper", "needs")}
    return {"name": path.stem, **{key: value for key, value in words.items() if value}}
