"""Post-rules: what is done to a merge once a rule has made it. They wrap any rule that merges to one encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from adamerge.errors import PoolError
from adamerge.merging.coefficients import Coefficients
from adamerge.merging.functional import merge_tensor
from adamerge.merging.task_vectors import TaskVectors, TensorRule
from adamerge.rules.rule import Needs, Rule

# (key, task vectors (T, *shape), the rule's vectors (T or 1, *shape)) -> as many vectors as the rule's, or one
TensorPost = Callable[[str, Tensor, Tensor], Tensor]
_NEEDS: tuple[Needs, ...] = ("nothing", "images", "labels")


class PostRule:
    """A change to what a rule made. It gives as many vectors as it is given, so that coefficients are learned on them
    as on the rule's, and it keeps the rule's coefficient: where a method starts from that, it starts from the
    post-rule's merge. One that `merges` gives one delta instead, whose coefficient is 1.

    Attributes:
        needs: what beside the weights it learns from, as a rule's.
        merges: gives (1, *shape), one merged vector.
    """

    needs: Needs = "nothing"
    merges: bool = False

    def prepare(self, vectors: TaskVectors, rule: TensorRule, coefficient: float) -> TensorPost:
        """Look at the task vectors and at what the rule makes of them once; gives what is done to each tensor.

        Args:
            vectors: the task vectors before the rule.
            rule: what the rule makes of each tensor.
            coefficient: what a static merge multiplies the rule's vectors with; not 0.
        """
        raise NotImplementedError


class _Wrapped(Rule):
    """A rule with something behind it, which is a rule again.

    Args:
        change: what is behind it.

    Raises:
        PoolError: a rule that keeps one encoder per task.
    """

    def __init__(self, rule: Rule, change: str) -> None:
        if rule.gives == "experts":
            raise PoolError(
                f"{change} changes a merge to one encoder, but {type(rule).__name__} keeps one per task.\n"
                "  Leave out post=..., or choose a rule that merges (task_arithmetic, ties, ...)."
            )
        self.rule = rule
        self.needs = rule.needs
        self.gives = rule.gives
        self.ranks = rule.ranks
        self.accurate = rule.accurate
        self.linear = rule.linear
        self.origin = rule.origin


class Learned(_Wrapped):
    """A rule whose vectors are merged to one delta with coefficients that a run has learned on them: what a post-rule
    that merges goes on from.

    Args:
        coefficients: of one tensor, by its key and the names of the rule's vectors.

    Raises:
        PoolError: a rule that keeps one encoder per task.
    """

    def __init__(self, rule: Rule, coefficients: Callable[[str, tuple[str, ...]], Coefficients]) -> None:
        super().__init__(rule, "start=...")
        self.coefficients = coefficients
        self.one = rule.gives == "delta"
        self.gives = "delta"

    def prepare(self, vectors: TaskVectors) -> TensorRule:
        rule = self.rule.prepare(vectors)
        names = ("merged",) if self.one else vectors.names

        def of_tensor(key: str, base: Tensor, stack: Tensor) -> Tensor | None:
            found = rule(key, base, stack)
            if found is None:
                return None
            rows = self.coefficients(key, names).values.to(found)
            return merge_tensor(rows, torch.zeros_like(found[0]), found.flatten(1)).unsqueeze(0)

        return of_tensor


class Followed(_Wrapped):
    """A rule with a post-rule behind it."""

    def __init__(self, rule: Rule, post: PostRule) -> None:
        super().__init__(rule, type(post).__name__)
        self.post = post
        self.needs = max(rule.needs, post.needs, key=_NEEDS.index)
        if post.merges:
            self.gives = "delta"

    def coefficient(self, count: int) -> float | None:
        return 1.0 if self.post.merges else self.rule.coefficient(count)

    def prepare(self, vectors: TaskVectors) -> TensorRule:
        given = self.rule.coefficient(len(vectors.names))
        coefficient = 1.0 if given is None else given
        if coefficient == 0.0:
            raise PoolError(
                f"{type(self.post).__name__} changes a merge, but with the coefficient 0 nothing is merged.\n"
                "  Leave out post=..., or choose another rule or scale."
            )
        rule = self.rule.prepare(vectors)
        post = self.post.prepare(vectors, rule, coefficient)

        def of_tensor(key: str, base: Tensor, stack: Tensor) -> Tensor | None:
            found = rule(key, base, stack)
            return None if found is None else post(key, stack, found)

        return of_tensor


def followed(rule: Rule, posts: Sequence[PostRule]) -> Rule:
    """The rule with post-rules behind it, the first one first."""
    for post in posts:
        rule = Followed(rule, post)
    return rule
