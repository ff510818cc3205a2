"""How accurate a merged model is, without labels: from its agreement with the experts and their certainty.

Each task's expert is the best judge at hand. If it gives class c of an image the probability q[c], then a merged model
that predicts c is right with that probability, as far as the expert is calibrated; the mean over images estimates the
accuracy.

A model that agrees with an expert of accuracy a on a share g of the images has an accuracy of at least g + a - 1 (both
hold on that share of the images at least) and of at most 1 - |a - g| (where one of the two holds, it is wrong). With
the expert's mean certainty in the place of a, that is the interval, widened by two standard errors of the mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adamerge.objectives.judged import judged


@dataclass(frozen=True)
class Estimate:
    """An accuracy and its interval, shares between 0 and 1."""

    value: float
    low: float
    high: float


def estimate(predicted: Tensor, expert: Tensor) -> Estimate:
    """The estimated accuracy of predictions.

    Args:
        predicted: (n,) classes predicted by the merged model.
        expert: (n, classes) probabilities of the task's expert on the same images.
    """
    right = judged(predicted, expert.double())
    certainty, own = expert.double().max(dim=1)
    value, error = float(right.mean()), 2 * float(right.std(correction=0)) / len(right) ** 0.5
    agreement, accuracy = float((predicted == own).double().mean()), float(certainty.mean())
    low = max(0.0, min(value, agreement + accuracy - 1.0) - error)
    high = min(1.0, max(value, 1.0 - abs(accuracy - agreement)) + error)
    return Estimate(value, low, high)


def mean_entropy(logits: Tensor) -> float:
    """The mean entropy in nats of predictions from logits (n, classes)."""
    log = torch.log_softmax(logits.double(), dim=1)
    return float(-(log.exp() * log).sum(dim=1).mean())


def near_chance(predicted: Tensor, expert: Tensor, classes: int) -> bool:
    """Whether predictions (n,) agree with the expert's (n,) no more often than by chance (plus two standard
    deviations).

    Chance is 1 / classes, and for predictions that prefer some classes sum_c p(c) q(c) of their shares p and the
    expert's q (as in Cohen's kappa), which tells of a model that gives one class to every image. Where chance alone
    agrees on more than half of the images (all of them look alike to the expert), nothing can be told.
    """
    agreement = float((predicted == expert).double().mean())
    p, q = (torch.bincount(c, minlength=classes).double() / len(c) for c in (predicted, expert))
    shares = [share for share in (1 / classes, float(p @ q)) if share <= 0.5]
    return any(agreement < share + 2 * (share * (1 - share) / len(predicted)) ** 0.5 for share in shares)
