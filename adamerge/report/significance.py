"""Whether a difference is more than chance: McNemar's test, the paired bootstrap, and Holm's correction.

Pictures are what is drawn: a test split stands for the pictures that could have been in it. Two models are judged on
the same pictures, so that what both get right, or both wrong, says nothing of their difference.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SEED = 20240613
REPLICATES = 2000
LEVEL = 0.95
_ROOM = 2_000_000  # numbers drawn at once

# {task: (seeds, n)} whether each of n pictures is classified rightly
Correct = Mapping[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class McNemar:
    """McNemar's test (Psychometrika 1947) of two models on the same pictures.

    Attributes:
        only_first, only_second: pictures that one model alone gets right.
        exact: two-sided p-value of the binomial test that both are as frequent.
        mid: its mid-p value, half of the probability of what was seen left out; nearer to the nominal level, while
            the exact test is conservative (Fagerland et al., BMC Medical Research Methodology 2013).
    """

    only_first: int
    only_second: int
    exact: float
    mid: float


def mcnemar(only_first: int, only_second: int) -> McNemar:
    """The test of two counts: of n discordant pictures each model has Binomial(n, 1/2) if neither is better."""
    n, fewer = only_first + only_second, min(only_first, only_second)
    steps = np.arange(1, fewer + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(n - steps + 1) - np.log(steps))]) - n * math.log(2)
    shares = np.exp(logs)  # P(0), ..., P(fewer)
    tail = math.fsum(shares)
    return McNemar(only_first, only_second, min(1.0, 2 * tail), min(1.0, 2 * tail - float(shares[-1])))


def standard_error(accuracy: float, n: int) -> float:
    """Of an accuracy on n pictures, by the binomial distribution."""
    return math.sqrt(accuracy * (1 - accuracy) / n)


def standard_error_of_mean(errors: Sequence[float]) -> float:
    """Of the unweighted mean over tasks, whose pictures are drawn apart from each other."""
    return math.sqrt(math.fsum(error**2 for error in errors)) / len(errors)


def replicates(
    tasks: Sequence[str], models: Mapping[str, Correct], count: int = REPLICATES, seed: int = SEED
) -> dict[str, NDArray[np.float64]]:
    """{model: (count, 1 + tasks)}: the average and each task's accuracy in every draw of pictures and of seeds.

    In a draw the pictures of each task are drawn anew, with replacement and apart from the other tasks, the same ones
    for every model: the draws of two models are paired. Within it each model of several seeds has these drawn anew too,
    apart from the other models.

    Args:
        tasks: in the order of the columns.
        models: {name: {task: (seeds, n)}}, of the same pictures.
    """
    weights = {name: _weights_of_seeds(name, own, count, seed) for name, own in models.items()}
    by_task = {name: np.empty((count, len(tasks))) for name in models}
    for column, task in enumerate(tasks):
        stacked = np.concatenate([own[task] for own in models.values()]).T.astype(
            np.float32
        )  # (n, all seeds)
        n = len(stacked)
        rng = np.random.default_rng([seed, zlib.crc32(task.encode())])
        at_once = max(1, _ROOM // n)
        for first in range(0, count, at_once):
            rows = slice(first, min(count, first + at_once))
            right = (_counts(rng, rows.stop - first, n) @ stacked).astype(np.float64)  # whole numbers
            start = 0
            for name, own in models.items():
                part = right[:, start : start + len(own[task])] / n
                by_task[name][rows, column] = (part * weights[name][rows]).sum(axis=1)
                start += len(own[task])
    return {name: np.column_stack([own.mean(axis=1), own]) for name, own in by_task.items()}


def _counts(rng: np.random.Generator, draws: int, n: int) -> NDArray[np.float32]:
    """(draws, n): how often each of n pictures is among n that are drawn."""
    drawn = rng.integers(0, n, (draws, n)) + n * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * n).reshape(draws, n).astype(np.float32)


def _weights_of_seeds(name: str, own: Correct, count: int, seed: int) -> NDArray[np.float64]:
    """(count, seeds): the share of each seed among as many that are drawn."""
    seeds = len(next(iter(own.values())))
    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), seeds])
    return rng.multinomial(seeds, [1 / seeds] * seeds, size=count) / seeds


def interval(values: NDArray[np.float64], level: float = LEVEL) -> tuple[float, float]:
    """The middle `level` of the draws (count,): the percentile interval."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm, Scandinavian Journal of Statistics 1979), in the given order."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    found, highest = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[index]))
        found[index] = highest
    return found
