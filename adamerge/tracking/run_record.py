"""A run folder as a record: everything that a mirror shows of a run is read from it. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from adamerge.errors import RunError
from adamerge.files import atomic_write_text
from adamerge.tracking.journal import Journal, Record
from adamerge.tracking.results import FILE, Results, read_results

LINEAGE = "lineage.json"
ERROR = "error.txt"
_NAMED = ("method", "rule", "suite", "backbone")


@dataclass(frozen=True)
class Weights:
    """A weight file: where it lies, and an id of its content."""

    path: str
    identity: str


@dataclass(frozen=True)
class Pictures:
    """A split of a task's pictures.

    Attributes:
        identity: of the pictures, their labels and class names, in order.
        pictures: how many.
        classes: a digest of the words of the classes.
    """

    identity: str
    pictures: int
    classes: str


@dataclass(frozen=True)
class Lineage:
    """What a run reads and, beside what lies in its own folder, writes. All of it is known by its content.

    Attributes:
        uses, makes: weight files by name: base, experts/<task>, heads/<task>, text, start.
        data: {task: {split: pictures}}; None for a run from before this was noted, {} for a merge that is
            not evaluated.
        heads: {task: identity} of a head file, or of the text tower and the prompts that a head is made of.
        code: {module: hash} of adamerge, by its version, and of modules of the user's own.
        settings: a hash of the settings that can change a number.
        origin: what the task vectors start from: "base" or "average".
    """

    uses: Mapping[str, Weights]
    makes: Mapping[str, Weights] = field(default_factory=dict)
    data: Mapping[str, Mapping[str, Pictures]] | None = None
    heads: Mapping[str, str] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)
    settings: str = ""
    origin: str = "base"


def write_lineage(folder: Path, lineage: Lineage) -> None:
    atomic_write_text(folder / LINEAGE, json.dumps(asdict(lineage), indent=2) + "\n")


def read_lineage(folder: Path) -> Lineage:
    """The lineage of a run folder; an empty one for a run older than the note of it.

    Raises:
        RunError: it is damaged.
    """
    path = folder / LINEAGE
    if not path.exists():
        return Lineage({})
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for kind in ("uses", "makes"):
            content[kind] = {name: Weights(**weights) for name, weights in content[kind].items()}
        if (data := content.get("data")) is not None:
            content["data"] = {
                task: {split: Pictures(**found) for split, found in splits.items()}
                for task, splits in data.items()
            }
        known = {f.name for f in fields(Lineage)}
        return Lineage(**{key: value for key, value in content.items() if key in known})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunError(f"{path} is damaged: {error}.") from error


def merged_alone(folder: Path) -> bool:
    """Whether the folder holds a merge that was not evaluated."""
    return read_lineage(folder).data == {}


@dataclass(frozen=True)
class RunRecord:
    """The run that a folder `<outputs>/<experiment>/<method>/<run_id>` holds, in whatever state it is."""

    folder: Path

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def method(self) -> str:
        """The method's name, the rule's where nothing is trained, or the command that makes weights."""
        return self.folder.parent.name

    @property
    def experiment(self) -> str:
        return self.folder.parent.parent.name

    def config(self) -> dict[str, Any]:
        """The run's config, nested.

        Raises:
            RunError: there is none, or it is damaged.
        """
        path = self.folder / "config.yaml"
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise RunError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
        if not isinstance(content, dict):
            raise RunError(f"{path} is damaged: it holds no settings.")
        return content

    def names(self) -> dict[str, str]:
        """{"method_name": ..., "rule_name": ..., "objective_name": ...}: dashboards group by flat keys only."""
        config = self.config()
        given = {key: config[key].get("name") for key in _NAMED if isinstance(config.get(key), dict)}
        method = config.get("method")
        objective = method.get("objective") if isinstance(method, dict) else None
        if isinstance(objective, dict):
            given["objective"] = str(objective.get("_target_")).rpartition(".")[2]
        return {f"{key}_name": str(name) for key, name in given.items() if name is not None}

    def journal(self) -> list[Record]:
        return Journal(self.folder / "journal.jsonl").read()

    def results(self) -> Results | None:
        return read_results(self.folder) if (self.folder / FILE).exists() else None

    def error(self) -> str | None:
        """Why the run failed; None where it did not, or was killed before it could say so."""
        path = self.folder / ERROR
        return path.read_text(encoding="utf-8").strip() if path.exists() else None

    def state(self) -> str:
        """finished, failed, or interrupted (also: still running)."""
        if (self.folder / FILE).exists() or self.weights("makes"):
            return "finished"
        return "interrupted" if self.error() is None else "failed"

    def weights(self, kind: str) -> dict[str, Weights]:
        """The files that the run "uses" or "makes", by name; none for a run older than the note of them."""
        lineage = read_lineage(self.folder)
        return dict(lineage.uses if kind == "uses" else lineage.makes)

    def check(self) -> None:
        """Read everything once.

        Raises:
            RunError: a file is damaged.
        """
        self.config(), self.journal(), self.results(), self.weights("uses")

    def figures(self) -> list[Path]:
        return sorted((self.folder / "figures").glob("*.png"))


def scalars(results: Results) -> dict[str, float]:
    """What is known of a finished run as flat numbers: test/average, test/<task>, what it cost."""
    found: dict[str, float | None] = {
        "test/average": results.average,
        "test/normalized_average": results.normalized_average,
        "test/agreement": results.agreement,
        "test/estimate": results.estimate,
        "test/unseen_average": results.unseen_average,
        "test/gap": results.gap,
        "test/ece": results.ece,
        "test/nll": results.nll,
        "test/brier": results.brier,
        **{f"test/{name}": task.accuracy for name, task in results.tasks.items()},
        "cost/trainable_parameters": results.trainable_parameters,
        "cost/peak_memory_bytes": results.peak_memory_bytes,
        **{f"cost/seconds_{phase}": seconds for phase, seconds in results.seconds.items()},
    }
    return {key: value for key, value in found.items() if value is not None}
