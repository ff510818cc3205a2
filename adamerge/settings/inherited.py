"""A config group's YAML as it reads with the YAMLs beside it that it is based on, without Hydra."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def inherited(path: Path) -> dict[str, Any]:
    """The top level of a YAML over that of its defaults; `model`, the one nested part, option by option."""
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    merged: dict[str, Any] = {}
    for default in content.pop("defaults", None) or ():
        if isinstance(default, str) and (path.parent / f"{default}.yaml").exists():
            merged |= inherited(path.parent / f"{default}.yaml")
    below, own = merged.get("model"), content.get("model")
    result = {**merged, **content}
    if isinstance(below, dict) and isinstance(own, dict):
        result["model"] = {**below, **own}
    return result


def first_comment(path: Path) -> str:
    """What a YAML says of itself in its first line, but for Hydra's package; empty where that is no comment."""
    lines = path.read_text(encoding="utf-8").splitlines()
    first = next((line for line in lines if not line.startswith("# @package")), "")
    return first.removeprefix("# ").rstrip(".") if first.startswith("# ") else ""
