"""Accuracy on the tasks without an expert, with their zero-shot heads."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from adamerge.evaluation.predicting import Passes, predict, score
from adamerge.merging import Pool
from adamerge.methods.base import Method
from adamerge.methods.static import Static
from adamerge.rules.linear import Pretrained
from adamerge.tasks.images import ImageSet
from adamerge.tracking.results import TaskResult


def unseen_results(
    method: Method,
    pool: Pool,
    images: Mapping[str, ImageSet],
    labels: Mapping[str, Tensor | None],
    passes: Passes,
) -> dict[str, TaskResult]:
    """Of the method, and of the base where the pool has one.

    Args:
        pool: the experts, before any rule; a finished one has the merged encoder in the base's place.
        images: of the unseen tasks, whose heads the pool has.
    """
    own = predict(method, images, **passes)
    base = {} if pool.finished else predict(Static(Pretrained()(pool)), images, **passes)
    return {
        task: TaskResult(
            accuracy=score(own[task], known, None).accuracy,
            n=len(images[task]),
            expert=None,
            pretrained=score(base[task], known, None).accuracy if task in base else None,
            normalized=None,
            agreement=None,
        )
        for task, known in labels.items()
    }
