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
