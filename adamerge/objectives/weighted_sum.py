"""A weighted sum of objectives."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from adamerge.objectives.objective import Classifier, Objective, Representation, Target

_EXAMPLE = "{agreement: 1.0, entropy: 0.1}"


class WeightedSum:
    """sum_i w_i L_i over the terms that the batch holds something for; None where it does for none.

    Args:
        terms: the objectives L by a name of one's own.
        weights: {name: w}, as many; below 0 the term is ascended.

    Raises:
        ValueError: no terms; a weight that is missing, not finite or 0, or of no term; a term of labels beside one of
            the experts, as a batch has one target.
    """

    def __init__(
        self, terms: Mapping[str, Objective] | None = None, weights: Mapping[str, float] | None = None
    ) -> None:
        weights = weights or {}
        if not terms:
            raise ValueError(f"terms should name objectives and their weights, e.g. {_EXAMPLE} (got {terms})")
        if set(terms) != set(weights):
            lone = sorted(set(terms) ^ set(weights))
            raise ValueError(f"each term should have one weight, e.g. {_EXAMPLE} (look at {', '.join(lone)})")
        for name, weight in weights.items():
            if not math.isfinite(weight) or weight == 0.0:
                raise ValueError(f"the weight of {name} should be a number other than 0 (got {weight})")
        targets = {term.target for term in terms.values()} - {"none"}
        if len(targets) > 1:
            told = ", ".join(f"{name} with {term.target}" for name, term in terms.items())
            raise ValueError(f"terms should compare with the experts or with labels, not with both ({told})")
        self.terms = dict(terms)
        self.weights = {name: float(weights[name]) for name in terms}
        self.target: Target = targets.pop() if targets else "none"

    @property
    def name(self) -> str:
        return " + ".join(f"{self.weights[key]:g} x {term.name}" for key, term in self.terms.items())

    def __call__(
        self, method: Classifier, representation: Representation, task: str, target: Representation
    ) -> Tensor | None:
        found = []
        for name, term in self.terms.items():
            loss = term(method, representation, task, target)
            if loss is not None:
                found.append(self.weights[name] * loss)
        return torch.stack(found).sum() if found else None
