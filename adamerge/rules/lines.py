"""LiNeS: a merge is scaled up with depth (arXiv 2410.17146, ICLR 2025; wang-kee/LiNeS)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from adamerge.architecture import family_of
from adamerge.errors import PoolError
from adamerge.merging.task_vectors import TaskVectors, TensorRule
from adamerge.rules.post import PostRule, TensorPost

# Task vectors that sum to less than this share of their own size sum to nothing but rounding.
_NOTHING = 0.01


@dataclass(frozen=True)
class Lines(PostRule):
    """Block l of L is merged with alpha + beta * l / (L - 1), and what lies outside of the blocks with alpha, in the
    place of the rule's coefficient:

        alpha = ||sum_t tau_t||_1 / ||sum_t v_t||_1 / T      over all tensors, v_t what the rule made of tau_t

    which is 1 / T where the rule changes nothing. Both ends of the image encoder, the projection too, have alpha.

    Args:
        beta: how much more the last block has than the first. The authors choose it on labels, between 0.1 and 1 (1.5
            behind TIES).

    The rule passes over the tensors twice.

    Raises:
        PoolError: an encoder without transformer blocks; task vectors that sum to zero, as about their average.
    """

    beta: float = 0.5

    def prepare(self, vectors: TaskVectors, rule: TensorRule, coefficient: float) -> TensorPost:
        depth = 1 + max((_block(key) for key in vectors.shapes), default=-1)
        if depth < 1:
            raise PoolError("LiNeS goes by the depth of transformer blocks; the encoder has none.")
        alpha = _alpha(vectors, rule)

        def of_tensor(key: str, stack: Tensor, found: Tensor) -> Tensor:
            share = max(_block(key), 0) / max(depth - 1, 1)
            return found * ((alpha + self.beta * share) / coefficient)

        return of_tensor


def _block(key: str) -> int:
    """The number of the block that a tensor lies in; -1 for one outside."""
    family = family_of(key)
    index = None if family is None else family.block_of(key)
    return -1 if index is None else index


def _alpha(vectors: TaskVectors, rule: TensorRule) -> float:
    summed = made = apart = 0.0
    for key in vectors.keys:
        stack = vectors.stack(key)
        summed += _norm(stack.sum(dim=0))
        apart += _norm(stack)
        found = rule(key, vectors.base(key), stack)
        made += 0.0 if found is None else _norm(found.sum(dim=0))
    if summed < _NOTHING * apart or made == 0.0:
        raise PoolError(
            "LiNeS compares the merge with the sum of the task vectors, and one of them is zero.\n"
            "  About the experts' average (origin=average) task vectors sum to zero: give origin=base, or another post."
        )
    return summed / made / len(vectors.names)


def _norm(tensor: Tensor) -> float:
    return float(tensor.abs().double().sum())
