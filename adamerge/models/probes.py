"""Heads made from the base's features of a few labeled pictures, for encoders without a text tower."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from adamerge.errors import DataError
from adamerge.merging import Head

SCALE = 100.0  # CLIP's logit scale, where its training ended


def prototypes(features: Tensor, labels: Tensor, classes: int) -> Head:
    """Centred class means: w_c = 100 (m_c / |m_c| - mean over classes), m_c the mean of the class's unit features.

    Without the centring all rows share most of their direction and the logits differ little; it changes no prediction.

    Args:
        features: (n, d), as the encoder gives them.
        labels: (n,) class indices.

    Raises:
        DataError: a class without a picture.
    """
    unit = normalize(features.double(), dim=-1)
    members = torch.bincount(labels, minlength=classes)
    if missing := (members == 0).nonzero().flatten().tolist():
        raise DataError(
            f"{len(missing)} of {classes} classes have no labeled picture to make a prototype of, "
            f"e.g. number {missing[0]}."
        )
    sums = torch.zeros(classes, unit.shape[-1], dtype=unit.dtype).index_add_(0, labels, unit)
    means = normalize(sums, dim=-1)
    return Head((SCALE * (means - means.mean(dim=0))).float())


_DECADES = range(-6, 3)
_SCALES = tuple(2.0**power for power in range(9))


def ridge(features: Tensor, labels: Tensor, classes: int) -> Head:
    """A ridge regression of the one-hot labels on the unit features, with a bias, in closed form and float64.

    W = Y_c' X_c (X_c' X_c + lambda I)^-1 and b = mean(y) - W mean(x), where X_c and Y_c are centred (the bias is not
    penalised); the logits are s (W x + b). Of lambda = 10^k times the mean eigenvalue of X_c' X_c, k = -6, ..., 2, that
    is taken whose squared error on each picture left out of the fit is least in sum (PRESS, Allen 1974), and of
    s = 1, 2, 4, ..., 256 that whose cross-entropy on these predictions is least; of equal ones the first.

    Args:
        features: (n, d), as the encoder gives them.
        labels: (n,) class indices.

    Raises:
        DataError: a class with fewer than two pictures, of which one is left out.
    """
    unit = normalize(features.double(), dim=-1)
    members = torch.bincount(labels, minlength=classes)
    if few := (members < 2).nonzero().flatten().tolist():
        raise DataError(
            f"{len(few)} of {classes} classes have fewer than two labeled pictures, e.g. number {few[0]}; ridge leaves "
            "one out to choose its penalty. checkpoints.heads=prototypes takes one of each."
        )
    targets = torch.nn.functional.one_hot(labels, classes).double()
    centre, share = unit.mean(dim=0), targets.mean(dim=0)
    values, directions = torch.linalg.eigh((unit - centre).T @ (unit - centre))
    values = values.clamp(min=0)
    turned = (unit - centre) @ directions  # (n, d): X_c' X_c is diagonal
    moments = turned.T @ (targets - share)
    fits = []
    for decade in _DECADES:
        shrunk = moments / (values + 10.0**decade * values.mean()).unsqueeze(1)
        leverage = 1 / len(unit) + (turned**2 / (values + 10.0**decade * values.mean())).sum(dim=1)
        left_out = targets - (targets - share - turned @ shrunk) / (1 - leverage).unsqueeze(1)
        fits.append((float((targets - left_out).square().sum()), shrunk, left_out))
    _, shrunk, left_out = min(fits, key=lambda fit: fit[0])
    losses = [float(torch.nn.functional.cross_entropy(scale * left_out, labels)) for scale in _SCALES]
    scale = _SCALES[losses.index(min(losses))]
    weight = (directions @ shrunk).T
    return Head((scale * weight).float(), (scale * (share - weight @ centre)).float())
