"""Choosing a merge's scale: every one of a grid is judged on the same images, and the best one is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from statistics import fmean

from torch import Tensor

from adamerge.evaluation.label_free import estimate
from adamerge.evaluation.predicting import Passes, Progress, predict_logits, score
from adamerge.merging import Coefficients, Pool
from adamerge.methods.static import Static
from adamerge.tasks.images import ImageSet
from adamerge.tracking.results import Tried

Judge = Callable[[str, Tensor], float]  # (task, (n,) predicted classes) -> an accuracy


def by_experts(certain: Mapping[str, Tensor]) -> Judge:
    """The label-free estimate: the mean probability that the task's own expert gives to what is predicted.

    Args:
        certain: {task: (n, classes)} the experts' probabilities of the same images.
    """
    return lambda task, predicted: estimate(predicted, certain[task]).value


def by_labels(labels: Mapping[str, Tensor]) -> Judge:
    """The accuracy against labels {task: (n,)}."""

    def accuracy(task: str, predicted: Tensor) -> float:
        found = score(predicted, labels[task], None).accuracy
        assert found is not None, "there are labels"
        return found

    return accuracy


def tried(
    merges: Iterable[tuple[float, Pool]],
    images: Mapping[str, ImageSet],
    judge: Judge,
    passes: Passes,
    progress: Progress = lambda done: None,
) -> tuple[Tried, ...]:
    """Each scale with its score, the unweighted mean over the tasks.

    Args:
        merges: scales, and the pool whose static merge is the one at that scale.
    """
    found = []
    for scale, pool in merges:
        logits = predict_logits(Static(pool), images, **passes, progress=progress)
        scores = {task: judge(task, own.argmax(dim=-1)) for task, own in logits.items()}
        found.append(Tried(scale, fmean(scores.values()), scores))
    return tuple(found)


def best(scales: Iterable[Tried]) -> Tried:
    """The one with the best score; of equals the least scale, which leaves more of the base as it was."""
    return max(scales, key=lambda one: (one.score, -one.scale))


def scaled(pool: Pool, coefficient: float) -> Pool:
    """The pool of a rule with another coefficient of its static merge; the vectors are the same ones."""
    return replace(pool, coefficients=Coefficients.everywhere(coefficient))
