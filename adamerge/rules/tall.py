"""TALL-masks and Consensus merging: where in a merge each task lies (arXiv 2405.07813, ICML 2024).

As in the authors' code (nik-dim/tall_masks).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from adamerge.merging.compact import Masked
from adamerge.merging.task_vectors import TaskVectors, TensorRule, flattened
from adamerge.rules.linear import TaskArithmetic
from adamerge.rules.rule import Rule


class Tall(Rule):
    """Task t's encoder is theta_0 + m_t * tau_MTL; the task must be known at inference.

        m_t = 1 where |tau_t| > threshold |tau_MTL - tau_t|, else 0        tau_MTL the sum of the vectors, with scale 1

    A task's part is one bit for each entry; tau_MTL is kept once for all.

    Args:
        threshold: the larger, the fewer entries a task keeps. The authors choose it for each task on validation
            pictures, among 0.2, 0.3, 0.4, 0.5 and 0.6.
        over: the rule whose vectors are summed, whatever its coefficient; None: task arithmetic.
    """

    gives = "experts"

    def __init__(self, threshold: float = 0.4, over: Rule | None = None) -> None:
        self.threshold = threshold
        self.over = checked("TALL-masks", threshold, over)
        self.ranks = self.over.ranks
        self.origin = self.over.origin

    def prepare(self, vectors: TaskVectors) -> TensorRule:
        masked = self.compact(vectors)

        def of_tensor(key: str, base: Tensor, stack: Tensor) -> Tensor | None:
            found = masked(key, base, stack)
            return None if found is None else found.dense().view(stack.shape)

        return of_tensor

    def compact(self, vectors: TaskVectors) -> Callable[[str, Tensor, Tensor], Masked | None]:
        rule = self.over.prepare(vectors)

        def of_tensor(key: str, base: Tensor, stack: Tensor) -> Masked | None:
            made = rule(key, base, stack)
            if made is None:
                return None
            masks = localised(stack, made.sum(dim=0), self.threshold)
            # The scales are a tensor of the form; a task's part is not scaled.
            return Masked(made.sum(dim=0).flatten(), flattened(masks), torch.ones(len(stack)).to(stack))

        return of_tensor


class Consensus(Rule):
    """theta_0 + scale * keep * tau_MTL, where keep is 1 on the entries that lie in the masks of enough tasks.

    Args:
        threshold: of the masks, as for TALL-masks.
        tasks: in how many tasks' masks an entry must be, all of them where there are fewer experts. 2 drops what one
            task alone uses, 1 only what none does, 0 nothing.
        scale: coefficient of a static merge; the authors choose it on validation pictures, 0.1 to 1.
        over: the rule whose vectors are summed to tau_MTL, whatever its coefficient; None: task arithmetic.
    """

    def __init__(
        self, threshold: float = 0.4, tasks: int = 2, scale: float = 0.3, over: Rule | None = None
    ) -> None:
        if tasks < 0:
            raise ValueError(f"tasks is a number of tasks, not {tasks}")
        self.threshold = threshold
        self.tasks = tasks
        self.scale = scale
        self.over = checked("Consensus", threshold, over)
        self.gives = self.over.gives
        self.ranks = self.over.ranks
        self.origin = self.over.origin

    def coefficient(self, count: int) -> float:
        return self.scale

    def prepare(self, vectors: TaskVectors) -> TensorRule:
        rule = self.over.prepare(vectors)
        enough = min(self.tasks, len(vectors.names))

        def of_tensor(key: str, base: Tensor, stack: Tensor) -> Tensor | None:
            made = rule(key, base, stack)
            if made is None:
                return None
            keep = localised(stack, made.sum(dim=0), self.threshold).sum(dim=0) >= enough
            return torch.where(keep, made, 0.0)

        return of_tensor


def localised(stack: Tensor, merged: Tensor, threshold: float) -> Tensor:
    """The masks (T, *shape) of task vectors (T, *shape) in their merge (*shape); equality is outside."""
    return stack.abs() > threshold * (merged - stack).abs()


def checked(name: str, threshold: float, over: Rule | None) -> Rule:
    """The rule below; task arithmetic where none is given.

    Raises:
        ValueError: a threshold below 0, or a rule that learns from images or keeps an encoder per task.
    """
    if threshold < 0.0:
        raise ValueError(f"threshold is a share of what the other tasks changed, at least 0, not {threshold}")
    rule = TaskArithmetic(1.0) if over is None else over
    if rule.needs != "nothing" or rule.gives == "experts":
        raise ValueError(f"{name} looks into a data-free merge to one encoder, not {type(rule).__name__}")
    return rule
