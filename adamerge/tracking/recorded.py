"""A run folder as a record: everything that a mirror shows of a run is read from it. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from adamerge.checkpoints.atomic import atomic_write_text
from adamerge.errors import RunError
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


def write_lineage(
    folder: Path, uses: Mapping[str, Weights], makes: Mapping[str, Weights] | None = None
) -> None:
    """Note which weight files a run reads and, beside those in its own folder, has written."""
    content = {"uses": uses, "makes": makes or {}}
    plain = {kind: {name: vars(w) for name, w in weights.items()} for kind, weights in content.items()}
    atomic_write_text(folder / LINEAGE, json.dumps(plain, indent=2) + "\n")


@dataclass(frozen=True)
class Recorded:
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
        path = self.folder / LINEAGE
        if not path.exists():
            return {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return {name: Weights(**weights) for name, weights in content[kind].items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RunError(f"{path} is damaged: {error}.") from error

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
