"""preset.json: how a run's settings differ from those of the preset that it names, written when the run starts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from adamerge.files import atomic_write_text

FILE = "preset.json"
# {option: (its value in the run, its value in the preset)}
Deviations = Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Start:
    """What the coefficients come from that a run starts from.

    Attributes:
        place: as it was given.
        digest: of the table of coefficients.
        run: {"method", "rule", "suite", "backbone", "checkpoints", "tasks", "start"} of the run that learned them; None
            for a table from elsewhere.
        deviations: of that run; None where it does not say.
    """

    place: str
    digest: str
    run: dict[str, Any] | None = None
    deviations: dict[str, list[Any]] | None = None


@dataclass(frozen=True)
class AgainstPreset:
    """`deviations` are {option: [its value in the run, its value in the preset]}."""

    deviations: dict[str, list[Any]] = field(default_factory=dict)
    start: Start | None = None


def write_preset(folder: Path, deviations: Deviations, start: Start | None) -> None:
    """Write preset.json into a run folder."""
    content = AgainstPreset({key: list(pair) for key, pair in deviations.items()}, start)
    atomic_write_text(folder / FILE, json.dumps(asdict(content), indent=2, default=str) + "\n")


def read_preset(folder: Path) -> AgainstPreset | None:
    """What a run folder says; None where it says nothing that can be understood."""
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        start = content["start"]
        return AgainstPreset(dict(content["deviations"]), None if start is None else Start(**start))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def started_from(place: str, file: Path) -> Start:
    """What is known of the table of coefficients in `file`, which `start=<place>` names."""
    folder = file.parent
    config = _config(folder / "config.yaml")
    if config is None or file.name != "coefficients.json":
        return Start(place, coefficients_digest(file))
    known = read_preset(folder)
    groups = ("method", "rule", "suite", "backbone", "checkpoints")
    run = {group: (config.get(group) or {}).get("name") for group in groups}
    run |= {"tasks": (config.get("suite") or {}).get("tasks"), "start": config.get("start")}
    return Start(place, coefficients_digest(file), run, known.deviations if known else None)


def coefficients_digest(file: Path) -> str:
    """The sha256 of a table's rows, tasks and values; of the file's bytes where it is no table."""
    text = file.read_bytes()
    try:
        table = json.loads(text)
        text = json.dumps([table["layers"], table["tasks"], table["values"]]).encode()
    except (ValueError, KeyError, TypeError):
        pass
    return hashlib.sha256(text).hexdigest()


def _config(path: Path) -> dict[str, Any] | None:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return None
    return content if isinstance(content, dict) else None
