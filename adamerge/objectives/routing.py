"""Which task an image comes from, for a method whose router chooses among the experts (Twin-Merging)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from adamerge.errors import ConfigError
from adamerge.objectives.objective import Classifier, Representation, Target, widened


class TaskIdentity:
    """Mean cross-entropy of a router to the task that the images come from (Twin-Merging, arXiv 2406.15479).

    Raises:
        ConfigError: a method without a router of features, `route` (n, d) -> (n, T).
    """

    name = "cross-entropy to the task (nats)"
    target: Target = "none"

    def __call__(
        self, method: Classifier, representation: Representation, task: str, target: Representation = ()
    ) -> Tensor:
        route = getattr(method, "route", None)
        if route is None:
            raise ConfigError(
                f"objective: TaskIdentity trains a router of images, which {type(method).__name__} does not have."
            )
        logits = widened(route(representation[-1]))
        index: int = method.task_index(task)  # type: ignore[attr-defined]
        return cross_entropy(logits, logits.new_full((len(logits),), index, dtype=torch.long))
