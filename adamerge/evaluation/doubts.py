"""Warnings about numbers that mostly mean a mistake in what was put together."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from torch import Tensor

from adamerge.evaluation.label_free import near_chance
from adamerge.evaluation.predicting import score
from adamerge.merging import Head

log = logging.getLogger(__name__)


def warn_of_chance(
    predicted: Mapping[str, Tensor], labels: Mapping[str, Tensor | None], heads: Mapping[str, Head]
) -> None:
    """A base at chance level mostly means that heads, class names and labels are in different orders.

    Args:
        predicted: {task: (n,)} what the base predicts.
    """
    for task, known in labels.items():
        if known is None:
            continue
        accuracy, classes = score(predicted[task], known, None).accuracy, heads[task].classes
        chance = 1 / classes
        # Two standard deviations above guessing.
        if accuracy is not None and accuracy < chance + 2 * (chance * (1 - chance) / len(known)) ** 0.5:
            log.warning(
                "Task %s: the base's zero-shot accuracy is %.1f %%, that of guessing among %d classes. "
                "Are head, class names and labels in the same order?",
                task, 100 * accuracy, classes,
            )  # fmt: skip


def warn_of_disagreement(
    predicted: Mapping[str, Tensor], experts: Mapping[str, Tensor], heads: Mapping[str, Head]
) -> None:
    """A model that knows nothing of its experts is no result but a mistake; this needs no labels.

    Args:
        predicted, experts: {task: (n,)} what the model and what each task's expert predict.
    """
    tasks = [task for task, own in predicted.items() if near_chance(own, experts[task], heads[task].classes)]
    if tasks:
        log.warning(
            "%s: the predictions agree with the expert's no more often than by chance. Usual causes: a base that "
            "the experts do not come from, another activation (QuickGELU or GELU) than theirs, a merging "
            "coefficient or learning rate that is too large, heads or pictures of another task. `doctor` with the "
            "same options compares the base and names the activation.",
            ", ".join(tasks),
        )  # fmt: skip
