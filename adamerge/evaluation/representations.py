"""Representation bias: how far the merged model's features are from the experts' (Surgery, arXiv 2402.02705).

`representations.json` holds the mean L1 distance per task and, for one task, both clouds in the plane. The plane is
spanned by the two principal directions of the expert's features, so that it is the same for every method (the paper
draws t-SNE, whose pictures cannot be laid beside each other).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adamerge.cache_folder import cache_dir
from adamerge.checkpoints.cached import cached
from adamerge.evaluation.predicting import Passes, predict_features
from adamerge.files import atomic_write_text
from adamerge.merging import Pool
from adamerge.methods.base import Method
from adamerge.methods.static import experts
from adamerge.tasks.images import ImageSet

FILE = "representations.json"
_IMAGES = 256  # of each task


def write_representations(
    folder: Path,
    method: Method,
    pool: Pool,
    images: Mapping[str, ImageSet],
    shown: str,
    encoders: Mapping[str, Mapping[str, Any]],
    passes: Passes,
) -> None:
    """Compare the method with the experts on the first images of each task.

    Args:
        folder: the run's.
        pool: the experts, before any rule.
        shown: the task whose clouds are drawn.
        encoders: {task: what its expert's encoder is made of}, as plain data that names an entry of the cache.
    """
    sample = {task: own.first(_IMAGES) for task, own in images.items()}
    own = predict_features(method, sample, **passes)
    teachers = experts(pool)
    theirs = {}
    for task, few in sample.items():
        made_from = {"kind": "features", **encoders[task], "images": few.digest()}
        make = partial(predict_features, teachers, {task: few}, **passes)
        theirs[task] = cached(cache_dir() / "representations", made_from, make)[task]
    distance = {task: float((own[task] - theirs[task]).abs().mean()) for task in sample}
    plane = Plane(theirs[shown])
    points = {"merged": plane(own[shown]), "expert": plane(theirs[shown])}
    content = {"task": shown, "distance": distance, "points": points}
    atomic_write_text(folder / FILE, json.dumps(content) + "\n")


class Plane:
    """The two directions in which features (n, d) vary most."""

    def __init__(self, features: Tensor) -> None:
        self.mean = features.mean(dim=0)
        directions = torch.linalg.svd(features - self.mean, full_matrices=True).Vh[:2]
        # A direction has no sign of its own: its largest entry is made positive.
        largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
        self.directions = directions * largest.sign()

    def __call__(self, features: Tensor) -> list[list[float]]:
        """Points [[x, y], ...]."""
        points: list[list[float]] = ((features - self.mean) @ self.directions.t()).tolist()
        return [[round(x, 4) for x in point] for point in points]
