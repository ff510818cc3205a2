"""Representation bias: how far the merged model's features are from the experts' (Surgery, arXiv 2402.02705).

`representations.json` holds the mean L1 distance per task and, for one task, both clouds in the plane. The plane is
spanned by the two principal directions of the expert's features, so that it is the same for every method (the paper
draws t-SNE, whose pictures cannot be laid beside each other).
"""

from __future__ import annotations

import json
from functools import partial

import torch
from torch import Tensor

from adamerge.checkpoints.cached import cached
from adamerge.evaluation.predicting import predict_features
from adamerge.files import atomic_write_text
from adamerge.merging import Pool
from adamerge.methods.base import Method
from adamerge.methods.static import experts
from adamerge.runs.images import Data
from adamerge.runs.run import Run
from adamerge.settings import cache_dir

FILE = "representations.json"
_IMAGES = 256  # of each task


def write_representations(run: Run, method: Method, pool: Pool, data: Data, shown: str) -> None:
    """Compare on the first test images of each task; `shown` is the task whose clouds are drawn."""
    sample = {task: images.first(_IMAGES) for task, images in data.images.items()}
    own = predict_features(method, sample, **run.passes)
    teachers = experts(pool)
    theirs = {}
    for task, images in sample.items():
        made_from = {
            "kind": "features",
            **run.encoders("base", f"experts/{task}"),
            "images": images.digest(),
        }
        make = partial(predict_features, teachers, {task: images}, **run.passes)
        theirs[task] = cached(cache_dir() / "representations", made_from, make)[task]
    distance = {task: float((own[task] - theirs[task]).abs().mean()) for task in sample}
    plane = Plane(theirs[shown])
    points = {"merged": plane(own[shown]), "expert": plane(theirs[shown])}
    content = {"task": shown, "distance": distance, "points": points}
    atomic_write_text(run.folder / FILE, json.dumps(content) + "\n")


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
