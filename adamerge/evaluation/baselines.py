"""The baselines that every run is compared with, computed once per machine for the same weights and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from adamerge.cache_folder import cache_dir
from adamerge.checkpoints.cached import cached
from adamerge.evaluation.predicting import Passes, predict_logits
from adamerge.evaluation.references import EXPERTS, References
from adamerge.merging import Pool
from adamerge.methods.static import Static
from adamerge.models.heads import head_digest
from adamerge.progress import image_progress
from adamerge.rules.linear import Individual, Pretrained, TaskArithmetic, WeightAverage
from adamerge.rules.rule import Rule
from adamerge.tasks.images import ImageSet

_CERTAIN = "certainty of "


def baselines(arithmetic: TaskArithmetic) -> dict[str, Rule]:
    """By the names of the rules.

    Args:
        arithmetic: task arithmetic with the suite's customary coefficient.
    """
    return {
        "pretrained": Pretrained(),
        "weight_average": WeightAverage(),
        "task_arithmetic": arithmetic,
        EXPERTS: Individual(),
    }


def predict_baselines(
    pool: Pool,
    images: Mapping[str, ImageSet],
    rules: Mapping[str, Rule],
    encoders: Mapping[str, Any],
    passes: Passes,
) -> References:
    """What each baseline predicts of the images, with the heads of the pool.

    Args:
        pool: the experts, before any rule.
        encoders: what their encoders are made of, as plain data that names an entry of the cache.
    """
    shared = {
        "kind": "predictions",
        **encoders,
        "images": {task: own.digest() for task, own in images.items()},
        "heads": {task: head_digest(head) for task, head in pool.heads.items()},
    }

    def make(name: str) -> dict[str, Tensor]:
        with image_progress(f"Evaluating {name}", images) as progress:
            logits = predict_logits(Static(rules[name](pool)), images, **passes, progress=progress)
        found = {task: values.argmax(dim=-1) for task, values in logits.items()}
        if name == EXPERTS:
            found |= {_CERTAIN + task: values.softmax(dim=-1).half() for task, values in logits.items()}
        return found

    predicted = {}
    for name, rule in rules.items():
        made_from = {**shared, "baseline": repr(rule)} | ({"with": "certainty"} if name == EXPERTS else {})
        predicted[name] = cached(cache_dir() / "predictions", made_from, partial(make, name))
    certain = {task: predicted[EXPERTS].pop(_CERTAIN + task).float() for task in images}
    return References(predicted, certain)
