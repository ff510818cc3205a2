"""What predictions that runs kept say of a comparison: intervals, and which differences are more than chance.

All of it is of the pictures that are scored. Models are paired picture by picture, and only where they were scored on
the same ones, in the same order, with the same labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adamerge.errors import RunError
from adamerge.report.names import shown
from adamerge.report.significance import Correct, McNemar, holm, interval, mcnemar, replicates
from adamerge.tracking.predictions import FILE, Predictions, read_predictions
from adamerge.tracking.references import read_classes
from adamerge.tracking.results import Results

BASELINES = ("pretrained", "weight_average", "task_arithmetic", "individual")
_CLOSE = 1e-9  # an accuracy counted anew is the recorded one


@dataclass(frozen=True)
class Judged:
    """A run that is compared: its folder, which has the predictions, and its results."""

    folder: Path
    results: Results


@dataclass(frozen=True)
class Difference:
    """How much more accurate one model is on average than another, between `low` and `high` in 95 of 100 draws."""

    value: float
    low: float
    high: float

    @property
    def told_apart(self) -> bool:
        return not self.low <= 0 <= self.high


@dataclass(frozen=True)
class Pair:
    """Two models on the same pictures.

    Attributes:
        difference: of the averages, the first's less the second's.
        tests: McNemar's by task, of one run of each: of the first seed that both have.
        pooled: McNemar's of the pictures of all tasks together.
        corrected: the pooled test's mid-p value, corrected for the number of pairs (Holm).
    """

    difference: Difference
    tests: Mapping[str, McNemar]
    pooled: McNemar
    corrected: float


@dataclass(frozen=True)
class Evidence:
    """Of the models whose predictions are known and on the same pictures.

    Attributes:
        tasks: in the order of the columns behind the average.
        correct: {model: {task: (seeds, n)}}.
        seeds: {model: its seeds}; of a baseline none.
        pictures: {task: pictures that are scored}.
        refused: a sentence for every model that cannot be judged or paired.
    """

    tasks: tuple[str, ...] = ()
    correct: Mapping[str, Correct] = field(default_factory=dict)
    seeds: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    pictures: Mapping[str, int] = field(default_factory=dict)
    refused: tuple[str, ...] = ()

    @cached_property
    def draws(self) -> dict[str, NDArray[np.float64]]:
        """{model: (draws, 1 + tasks)}, the average first."""
        return replicates(self.tasks, self.correct)

    def interval(self, name: str, column: int = 0) -> tuple[float, float]:
        """95 % of the draws of the average (column 0) or a task's accuracy."""
        return interval(self.draws[name][:, column])

    def difference(self, first: str, second: str, column: int = 0) -> Difference:
        """By how much the first is more accurate, on average (column 0) or on a task; draws are paired."""
        value = self._share(first, column) - self._share(second, column)
        return Difference(value, *interval(self.draws[first][:, column] - self.draws[second][:, column]))

    def _share(self, name: str, column: int) -> float:
        shares = [float(self.correct[name][task].mean()) for task in self.tasks]
        return float(np.mean(shares)) if column == 0 else shares[column - 1]

    @cached_property
    def pairs(self) -> dict[tuple[str, str], Pair]:
        """Every two models, the one that stands first in `correct` first."""
        names = list(combinations(self.correct, 2))
        tests = {pair: self._tests(*pair) for pair in names}
        pooled = {
            pair: mcnemar(sum(t.only_first for t in own.values()), sum(t.only_second for t in own.values()))
            for pair, own in tests.items()
        }
        corrected = holm([test.mid for test in pooled.values()])
        return {
            pair: Pair(self.difference(*pair), tests[pair], pooled[pair], value)
            for pair, value in zip(names, corrected, strict=True)
        }

    def _tests(self, first: str, second: str) -> dict[str, McNemar]:
        a, b = self._rows(first, second)
        found = {}
        for task in self.tasks:
            one, other = self.correct[first][task][a], self.correct[second][task][b]
            found[task] = mcnemar(int((one & ~other).sum()), int((other & ~one).sum()))
        return found

    def _rows(self, first: str, second: str) -> tuple[int, int]:
        """Which run of each is tested: of the first seed that both have, else each one's first."""
        ours, theirs = self.seeds[first], self.seeds[second]
        both = sorted(set(ours) & set(theirs))
        return (ours.index(both[0]), theirs.index(both[0])) if both else (0, 0)


def evidence_of(tasks: Sequence[str], groups: Mapping[str, Sequence[Judged]]) -> Evidence:
    """What can be judged.

    Args:
        tasks: those that are compared.
        groups: {name: runs by rising seed}.
    """
    refused: list[str] = []
    silent: list[str] = []
    found: dict[str, list[Predictions]] = {}
    for name, runs in groups.items():
        try:
            known = [own for run in runs if (own := _predictions(run, tasks)) is not None]
        except RunError as error:
            refused.append(f"{name}: {str(error).splitlines()[0]}")
            continue
        if len(known) == len(runs):
            found[name] = known
        else:
            silent.append(name)
    if not found:
        return Evidence(refused=tuple(refused))
    if silent:
        refused.append(
            f"no predictions are kept of all runs of {', '.join(silent)}; evaluate run=<folder> writes them"
        )
    first = next(iter(found))
    paired = {name: runs for name, runs in found.items() if _paired(name, runs, first, found[first], refused)}
    of_baselines = _baselines(tasks, next(iter(groups[first])), found[first][0], set(groups))
    correct = of_baselines | {name: _correct(runs, tasks) for name, runs in paired.items()}
    own_seeds = {name: tuple(run.results.seed for run in groups[name]) for name in paired}
    sizes = {task: len(found[first][0][task].scored) for task in tasks}
    return Evidence(tuple(tasks), correct, dict.fromkeys(of_baselines, ()) | own_seeds, sizes, tuple(refused))


def _predictions(run: Judged, tasks: Sequence[str]) -> Predictions | None:
    """Those of a run; None where it keeps none, or the pictures have no labels.

    Raises:
        RunError: a damaged file, or one that is not of these results.
    """
    found = read_predictions(run.folder / FILE)
    if found is None or any(task not in found or found[task].labels is None for task in tasks):
        return None
    for task in tasks:
        right, noted = found[task].correct, run.results.tasks[task].accuracy
        if right is None or noted is None or abs(float(right.mean()) - noted) > _CLOSE:
            raise RunError(f"{run.folder / FILE} is not of its results.json (task {task}): it is not used")
    return found


def _paired(
    name: str, runs: Sequence[Predictions], first: str, others: Sequence[Predictions], refused: list[str]
) -> bool:
    """Whether all runs were scored on the same pictures as the first run of the first model; why not is noted."""
    for task in others[0]:
        if any(task in run and run[task].on != others[0][task].on for run in runs):
            refused.append(
                f"{name} and {first} were scored on other pictures or labels of task {task}, or in another order: "
                "they are not paired"
            )
            return False
    return True


def _correct(runs: Sequence[Predictions], tasks: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
    return {task: np.stack([np.asarray(run[task].correct) for run in runs]) for task in tasks}


def _baselines(
    tasks: Sequence[str], run: Judged, on: Predictions, taken: set[str]
) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """What a run was compared with, on the same rows, by the name that tables give it."""
    found: dict[str, dict[str, NDArray[np.bool_]]] = {}
    for name, by_task in read_classes(run.folder, BASELINES).items():
        if name not in taken and all(len(by_task.get(t, ())) == len(on[t].predicted) for t in tasks):
            found[shown(name)] = {
                task: (by_task[task] == np.asarray(on[task].labels))[on[task].scored][None] for task in tasks
            }
    return found
