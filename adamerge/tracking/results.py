"""results.json: what a finished run found. Written last and at once, so that its presence means the run is done."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from adamerge.checkpoints.atomic import atomic_write_text
from adamerge.errors import RunError

SCHEMA = 1
FILE = "results.json"


@dataclass(frozen=True)
class TaskResult:
    """One task: shares between 0 and 1, None where the data has no labels.

    Attributes:
        n: number of test images.
        expert, pretrained: accuracy of the task's own expert and of the base.
        normalized: accuracy divided by the expert's.
        agreement: share of images on which the merged model predicts what the expert predicts.
        entropy: mean entropy of the predictions in nats.
        estimate: accuracy estimated without labels, between `estimate_low` and `estimate_high`.
    """

    accuracy: float | None
    n: int
    expert: float | None
    pretrained: float | None
    normalized: float | None
    agreement: float | None
    entropy: float | None = None
    estimate: float | None = None
    estimate_low: float | None = None
    estimate_high: float | None = None


@dataclass(frozen=True)
class Reference:
    """A model that the run is compared with, by task."""

    accuracy: dict[str, float | None]
    agreement: dict[str, float | None]

    @property
    def average(self) -> float | None:
        return mean(list(self.accuracy.values()))


@dataclass(frozen=True)
class Attack:
    """What the trigger does: shares of a task's test images, of other classes than the target, that are predicted as
    the target once they bear the trigger.

    Attributes:
        success: by this run's model.
        expert: by the task's expert, which has the backdoor.
        weight_average: by the mean of the experts.
        clean: of the same images without the trigger, by this run's model.
    """

    success: float | None
    expert: float | None
    weight_average: float | None
    clean: float | None


@dataclass(frozen=True)
class Results:
    """Everything in results.json; `average` and `normalized_average` are unweighted means over the tasks.

    `unseen` are tasks that no expert was merged for, `attack` the tasks whose expert has a backdoor, `objective` is
    what the losses in the journal are, with the unit; None where nothing is trained.
    """

    run_id: str
    command: str
    method: str
    rule: str
    suite: str
    backbone: str
    seed: int
    steps: int
    trainable_parameters: int
    seconds: dict[str, float]
    peak_memory_bytes: int
    tasks: dict[str, TaskResult]
    versions: dict[str, str]
    device: str
    baselines: dict[str, Reference] = field(default_factory=dict)
    unseen: dict[str, TaskResult] = field(default_factory=dict)
    attack: dict[str, Attack] = field(default_factory=dict)
    objective: str | None = None
    schema: int = SCHEMA

    @property
    def average(self) -> float | None:
        return self._over_tasks("accuracy")

    @property
    def normalized_average(self) -> float | None:
        return self._over_tasks("normalized")

    @property
    def unseen_average(self) -> float | None:
        return mean([task.accuracy for task in self.unseen.values()])

    @property
    def agreement(self) -> float | None:
        return self._over_tasks("agreement")

    @property
    def entropy(self) -> float | None:
        return self._over_tasks("entropy")

    @property
    def estimate(self) -> float | None:
        return self._over_tasks("estimate")

    @property
    def estimate_low(self) -> float | None:
        return self._over_tasks("estimate_low")

    @property
    def estimate_high(self) -> float | None:
        return self._over_tasks("estimate_high")

    def _over_tasks(self, value: str) -> float | None:
        return mean([getattr(task, value) for task in self.tasks.values()])


def mean(values: Sequence[float | None]) -> float | None:
    """The unweighted mean; None if a value is not known or there are none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def as_json(results: Results) -> dict[str, Any]:
    """Everything, with the averages over the tasks."""
    return asdict(results) | {
        "average": results.average,
        "normalized_average": results.normalized_average,
        "agreement": results.agreement,
        "estimate": results.estimate,
        "unseen_average": results.unseen_average,
    }


def write_results(folder: Path, results: Results) -> None:
    atomic_write_text(folder / FILE, json.dumps(as_json(results), indent=2) + "\n")


def read_results(folder: Path) -> Results:
    """The results of a run folder.

    Raises:
        RunError: it is no finished run, or the file is damaged or of another schema.
    """
    path = folder / FILE
    if not path.exists():
        raise RunError(f"{folder} is not a finished run: it has no {FILE}.")
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content.get("schema") != SCHEMA:
            raise RunError(f"{path} has schema {content.get('schema')}; this version reads {SCHEMA}.")
        content["tasks"] = {name: TaskResult(**task) for name, task in content["tasks"].items()}
        content["baselines"] = {name: Reference(**b) for name, b in content.get("baselines", {}).items()}
        content["unseen"] = {name: TaskResult(**t) for name, t in content.get("unseen", {}).items()}
        content["attack"] = {name: Attack(**a) for name, a in content.get("attack", {}).items()}
        known = {f.name for f in fields(Results)}
        return Results(**{key: value for key, value in content.items() if key in known})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunError(f"{path} is damaged: {error}.\n  Delete it and run the same command again.") from error
