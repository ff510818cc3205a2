"""What a trigger does to the tasks whose expert has a backdoor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from adamerge.errors import DataError
from adamerge.evaluation.predicting import Passes, predict
from adamerge.merging import Pool
from adamerge.methods.base import Method
from adamerge.methods.static import Static, experts
from adamerge.rules.linear import WeightAverage
from adamerge.tasks.images import ImageSet
from adamerge.tasks.poison import Trigger
from adamerge.tracking.results import Attack


def attacked(
    method: Method,
    pool: Pool,
    images: Mapping[str, ImageSet],
    labels: Mapping[str, Tensor | None],
    tasks: Sequence[str],
    trigger: Trigger,
    passes: Passes,
) -> dict[str, Attack]:
    """The shares of each attacked task's images, of other classes than the target, that are predicted as the target.

    Args:
        pool: the experts, before any rule.

    Raises:
        DataError: a task without labels.
    """
    found: dict[str, Attack] = {}
    for task in tasks:
        known = labels[task]
        if known is None:
            raise DataError(
                f"attack: the success on '{task}' needs to know which images are of the target class."
            )
        (others,) = torch.nonzero(known != trigger.target, as_tuple=True)
        clean = images[task][others]
        shown = {"marked": trigger(clean), "clean": clean}
        models = {
            "success": (method, "marked"),
            "expert": (experts(pool), "marked"),
            "weight_average": (Static(WeightAverage()(pool)), "marked"),
            "clean": (method, "clean"),
        }
        shares = {}
        for name, (model, kind) in models.items():
            predicted = predict(model, {task: ImageSet.of(shown[kind])}, **passes)[task]
            shares[name] = float((predicted == trigger.target).double().mean())
        found[task] = Attack(**shares)
    return found
