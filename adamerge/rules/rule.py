"""What every merging rule is: per-task vectors in, tensor by tensor, per-task vectors or one delta out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from adamerge.merging import Coefficients, Pool
from adamerge.merging.compact import Form, LowRank, Masked, as_vectors, kept_as
from adamerge.merging.pool import one_hot
from adamerge.merging.quantised import BITS
from adamerge.merging.task_vectors import (
    InMemory,
    Observed,
    Origin,
    Statistics,
    TaskVectors,
    TensorRule,
    about,
    kept_of_rule,
)

Needs = Literal["nothing", "images", "labels"]
Gives = Literal["vectors", "delta", "experts"]
CompactRule = Callable[[str, Tensor, Tensor], Tensor | Masked | LowRank | None]


class Rule:
    """A static merge. A rule overrides `of_tensor`, or `prepare` where a tensor needs to know of the others.

    Attributes:
        needs: what beside the weights it learns from. With "images" the vectors that `prepare` sees come with
            statistics of unlabeled images (`observed`).
        gives: "vectors": (T, *shape), whose coefficients can be learned task by task.
            "delta": (1, *shape), one merged vector, with one coefficient per layer.
            "experts": (T, *shape), and task t keeps an encoder of its own, base + its vector.
        ranks: compares entries with a threshold or with each other, in float32: in bfloat16, and more so in few bits,
            many are equal.
        linear: linear in the task vectors, so that about the experts' average, where these sum to zero, its static
            merge tells nothing new.
        accurate: its merge is meant to be accurate on every task, so that its scale can be chosen by that.
        origin: what the task vectors start from, unless whoever merges says otherwise.
        own_start: coefficients that are learned on its vectors start at its own merge: the customary coefficient of
            task vectors as they are is not that of these.
    """

    needs: Needs = "nothing"
    gives: Gives = "vectors"
    ranks: bool = False
    accurate: bool = True
    linear: bool = False
    origin: Origin = "base"
    own_start: bool = False

    def prepare(self, vectors: TaskVectors) -> TensorRule:
        """Look at all task vectors once (a threshold over all tensors, a norm); gives what is done to each tensor."""
        return self.of_tensor

    def of_tensor(self, key: str, base: Tensor, stack: Tensor) -> Tensor | None:
        """(T, *shape) task vectors of one tensor -> (T or 1, *shape); None leaves it the base's."""
        return stack

    def compact(self, vectors: TaskVectors) -> CompactRule:
        """As `prepare`, of a rule whose vectors are less than T dense ones: it gives them in that form."""
        return self.prepare(vectors)

    def coefficient(self, count: int) -> float | None:
        """What a static merge multiplies the vectors with, by the number of experts; None keeps the pool's."""
        return 1.0

    def weights(self, names: tuple[str, ...], task: str | None = None) -> Tensor:
        """(T,) what a static merge multiplies the vectors with; (1,) for one delta.

        Args:
            names: of the T experts.
            task: whose encoder, where each task has its own.

        Raises:
            PoolError: a rule with an encoder per task, and no task, or none of that name.
        """
        value = self.coefficient(len(names))
        count = 1 if self.gives == "delta" else len(names)
        weights = torch.full((count,), 1.0 if value is None else value)
        return weights if self.gives != "experts" else weights * one_hot(names, task)

    @torch.no_grad()
    def __call__(
        self,
        pool: Pool,
        dtype: torch.dtype | None = None,
        origin: Origin | None = None,
        statistics: Statistics | None = None,
    ) -> Pool:
        """The pool with this rule's vectors in the place of its own. The heads stay, and the base about itself.

        Args:
            dtype: what the vectors are kept as, where it is another than the pool's. Few bits are for T vectors: one
                delta, and what has a form of its own, stays in the precision that it was made in.
            origin: what the task vectors start from; None: the rule's own. About the average the new pool's base is the
                experts' mean.
            statistics: of unlabeled images, for a rule that needs them.

        Raises:
            PoolError: a rule without the images that it needs; origin=average of one expert.
        """
        origin = self.origin if origin is None else origin
        vectors = seen_from(origin, statistics, InMemory(pool.names, pool.base, pool.vectors))
        rule = self.compact(vectors)
        found: dict[str, Tensor | Form] = {}
        kept = dtype or kept_as(pool.vectors)
        for key in vectors.keys:
            stack = vectors.stack(key)
            changed = rule(key, vectors.base(key), stack)
            if isinstance(changed, Tensor):
                found[key] = kept_of_rule(key, vectors, stack, changed, kept)
            elif changed is not None:
                found[key] = changed if kept in BITS else changed.to(kept)
        coefficient = self.coefficient(len(pool.names))
        return replace(
            pool,
            base=pool.base if origin == "base" else {key: vectors.base(key) for key in pool.base},
            vectors=as_vectors(found),
            names=("merged",) if self.gives == "delta" else pool.names,
            coefficients=pool.coefficients if coefficient is None else Coefficients.everywhere(coefficient),
            by_task=self.gives == "experts",
        )


def seen_from(origin: Origin, statistics: Statistics | None, vectors: TaskVectors) -> TaskVectors:
    """The task vectors as a rule sees them: about the origin, with the statistics where there are any."""
    vectors = about(vectors, origin)
    return vectors if statistics is None else Observed(vectors, statistics)
