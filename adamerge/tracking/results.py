"""results.json: what a finished run found. Written last and at once, so that its presence means the run is done."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from adamerge.errors import RunError
from adamerge.files import atomic_write_text

SCHEMA = 2
_READ = (1, 2)  # 1 is without protocol, calibration and parts
FILE = "results.json"
INDEPENDENT = "independent"  # the order of a stream that nothing was said about


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
        ece, nll, brier: calibration: expected calibration error in 15 bins, negative log-likelihood in nats, and
            the Brier score, 0 to 2; the less, the better.
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
    ece: float | None = None
    nll: float | None = None
    brier: float | None = None


@dataclass(frozen=True)
class PartResult:
    """The part of a task's test images that was adapted on, or the part that was not."""

    accuracy: float | None
    agreement: float | None
    n: int


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
class Guarded:
    """What a guard kept: accuracies estimated without labels on the images that it held back, averaged over the tasks.

    Attributes:
        start, best, end: before the first round, of the state that is kept, after the last round that was run.
        kept: which state the results are of: "start", "best" (one in between) or "end".
        round: rounds behind that state.
        collapsed: what collapsed on the way, "task/<task>" or "expert/<expert>".
    """

    start: float
    best: float
    end: float
    kept: Literal["start", "best", "end"]
    round: int
    collapsed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tried:
    """A scale of a rule, and how good its merge was on the images that the choice looked at.

    Attributes:
        score: the unweighted mean of `tasks`, by which was chosen: the label-free estimate of the accuracy, or the
            accuracy.
    """

    scale: float
    score: float
    tasks: dict[str, float]


@dataclass(frozen=True)
class Choice:
    """How a rule's scale was chosen.

    Attributes:
        by: "label_free" or "labels".
        option: where the scale stands: "rule.scale".
        split: of the images looked at: "test", "train", "validation", or "0.5 of test".
        images: {task: number} of them.
        prior: the rule's own scale.
        chosen: the best one of the grid.
        grid: all that were tried.
    """

    by: Literal["label_free", "labels"]
    option: str
    split: str
    images: dict[str, int]
    prior: float
    chosen: float
    grid: tuple[Tried, ...]


@dataclass(frozen=True)
class RoutedTask:
    """One task's images whose task nobody told: shares between 0 and 1, None where the data has no labels.

    Attributes:
        routed: share of the images that are taken for images of this task.
        accuracy: of which task and class are found: Hits@1 among the classes of all tasks.
        hits3, hits5: of which the class is among the three, or five, that are the most probable of all tasks'.
        n: number of images.
        sent: {task: images that are taken for its}.
    """

    routed: float
    accuracy: float | None
    hits3: float | None
    hits5: float | None
    n: int
    sent: dict[str, int]


@dataclass(frozen=True)
class Routing:
    """What a run's model is worth where the task of an image is not known, by a router.

    Attributes:
        looks_at: the images that the router was made from, "32 test images per task, transductive", or "no images".
    """

    tasks: dict[str, RoutedTask]
    looks_at: str

    def average(self, value: str) -> float | None:
        """The unweighted mean over the tasks of "routed", "accuracy", "hits3" or "hits5"."""
        return mean([getattr(task, value) for task in self.tasks.values()])


ROUTERS = ("sim", "mass", "joint")
ROUTED = ("routed", "accuracy", "hits3", "hits5")


@dataclass(frozen=True)
class Results:
    """Everything in results.json; `average` and `normalized_average` are unweighted means over the tasks.

    `unseen` are tasks that no expert was merged for, `attack` the tasks whose expert has a backdoor.

    `tasks` are of the images that the protocol scores: the whole test split, or where the suite cuts it in two
    (suite.adapt_on={share: ...}) the part that was not adapted on. The fields of old files are None where they are new.

    Attributes:
        objective: what the losses in the journal are, with the unit; None where nothing is trained.
        protocol: "transductive": images that are scored were adapted on; "inductive": none of them was; "none":
            nothing was adapted.
        task_known: whether an image's task is given when it is classified: so it is wherever the task's own head
            classifies, also where no other part of the model depends on the task.
        chooser: how scales and learning rates were chosen: "prior" (customary), "labels" or "label_free".
        origin: what task vectors start from: "base", or "average", the experts' mean.
        lineage: the family of checkpoints; numbers of different families must not be mixed.
        stream: the order in which images came to what adapted on them.
        adapted, held_out: the two parts of each task's test split, where only a part of it was adapted on. Of a run
            that adapts on nothing (a static rule): how far the parts differ by themselves.
        guard: what the guard kept; None of a run without one.
        choice: how the rule's scale was chosen; None where it is the rule's own.
        bytes: size of what predicts, as files in the run folder: encoder, heads and what the method goes on to use.
        routing: {router: results without the task}, of the routers that were asked for.
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
    protocol: str | None = None
    task_known: bool | None = None
    chooser: str | None = None
    lineage: str | None = None
    origin: str = "base"
    stream: str = INDEPENDENT
    adapted: dict[str, PartResult] = field(default_factory=dict)
    held_out: dict[str, PartResult] = field(default_factory=dict)
    guard: Guarded | None = None
    choice: Choice | None = None
    bytes: int | None = None
    routing: dict[str, Routing] = field(default_factory=dict)
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

    @property
    def ece(self) -> float | None:
        return self._over_tasks("ece")

    @property
    def nll(self) -> float | None:
        return self._over_tasks("nll")

    @property
    def brier(self) -> float | None:
        return self._over_tasks("brier")

    @property
    def adapted_average(self) -> float | None:
        return mean([part.accuracy for part in self.adapted.values()])

    @property
    def held_out_average(self) -> float | None:
        return mean([part.accuracy for part in self.held_out.values()])

    @property
    def gap(self) -> float | None:
        """How much more accurate the model is on the images that it was adapted on than on the rest."""
        seen, unseen = self.adapted_average, self.held_out_average
        return None if seen is None or unseen is None else seen - unseen

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
        "ece": results.ece,
        "nll": results.nll,
        "brier": results.brier,
        "adapted_average": results.adapted_average,
        "held_out_average": results.held_out_average,
        "gap": results.gap,
        "routing_average": {
            router: {value: found.average(value) for value in ROUTED}
            for router, found in results.routing.items()
        },
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
        if content.get("schema") not in _READ:
            raise RunError(
                f"{path} has schema {content.get('schema')}; this version reads {' and '.join(map(str, _READ))}."
            )
        content["tasks"] = {name: TaskResult(**task) for name, task in content["tasks"].items()}
        content["baselines"] = {name: Reference(**b) for name, b in content.get("baselines", {}).items()}
        content["unseen"] = {name: TaskResult(**t) for name, t in content.get("unseen", {}).items()}
        content["attack"] = {name: Attack(**a) for name, a in content.get("attack", {}).items()}
        for part in ("adapted", "held_out"):
            content[part] = {name: PartResult(**p) for name, p in content.get(part, {}).items()}
        if (guard := content.get("guard")) is not None:
            content["guard"] = Guarded(**{**guard, "collapsed": tuple(guard["collapsed"])})
        if (choice := content.get("choice")) is not None:
            grid = tuple(Tried(**one) for one in choice["grid"])
            content["choice"] = Choice(**{**choice, "grid": grid})
        content["routing"] = read_routing(content)
        known = {f.name for f in fields(Results)}
        return Results(**{key: value for key, value in content.items() if key in known})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunError(f"{path} is damaged: {error}.\n  Delete it and run the same command again.") from error


def read_routing(content: dict[str, Any]) -> dict[str, Routing]:
    """Of a results.json's content."""
    return {
        name: Routing(
            {task: RoutedTask(**values) for task, values in found["tasks"].items()}, found["looks_at"]
        )
        for name, found in content.get("routing", {}).items()
    }
