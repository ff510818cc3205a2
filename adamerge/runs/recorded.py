"""What frozen encoders make of a run's images: computed once per image, and kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from adamerge.checkpoints.cached import cached
from adamerge.merging import Pool
from adamerge.methods.base import Method
from adamerge.methods.static import experts
from adamerge.progress import image_progress
from adamerge.runs.run import Run
from adamerge.settings import cache_dir
from adamerge.tasks.images import ImageSet
from adamerge.tasks.stream import Stream
from adamerge.training.recording import (
    RecordedStream,
    Recording,
    encoder_digest,
    record,
    recording,
    shown_images,
)


def recorded_stream(run: Run, method: Method, pool: Pool, of_experts: bool, stream: Stream) -> Dataset[Any]:
    """The stream with everything that does not change looked up instead of computed.

    Args:
        of_experts: whether what the experts make of the images is needed.
    """
    shown = {task: rows for task in stream.image_sets if len(rows := shown_images(stream, task))}
    encoded = targets = None
    if of_experts:
        targets = of_the_experts(run, pool, stream.image_sets, shown, method.block_means)
    if method.frozen_encoder:

        def of_merged(task: str) -> dict[str, Any]:
            return {"encoder": encoder_digest(method, task), **run.encoders()}

        encoded = _record(run, method, stream.image_sets, shown, of_merged, "Recording the merged encoder")
    return stream if encoded is None and targets is None else RecordedStream(stream, encoded, targets)


def of_the_experts(
    run: Run,
    pool: Pool,
    images: Mapping[str, ImageSet],
    rows: Mapping[str, Tensor],
    block_means: bool = False,
) -> dict[str, Recording]:
    """What each task's expert makes of the images at `rows`.

    Args:
        pool: the experts, before any rule.
        rows: {task: int64 (n,)} of its images.
        block_means: the token means after every residual block too.
    """

    def made_from(task: str) -> dict[str, Any]:
        return {"encoder": "expert", **run.encoders("base", f"experts/{task}"), "deep": block_means}

    return _record(run, experts(pool, block_means), images, rows, made_from, "Recording the experts")


def judgements(run: Run, pool: Pool, images: Mapping[str, ImageSet]) -> dict[str, Tensor]:
    """The probabilities (n, classes) that each task's expert gives to all of the images."""
    rows = {task: torch.arange(len(own)) for task, own in images.items()}
    found = of_the_experts(run, pool, images, rows)
    return {task: pool.heads[task].logits(own.parts[-1]).softmax(dim=-1) for task, own in found.items()}


def _record(
    run: Run,
    method: Method,
    images: Mapping[str, ImageSet],
    rows: Mapping[str, Tensor],
    made_from: Callable[[str], dict[str, Any]],
    title: str,
) -> dict[str, Recording]:
    """One pass of `method` over the images at `rows`, kept on disk under what it was made from."""
    recordings = {}
    with image_progress(title, rows) as progress:
        for task, indices in rows.items():
            own = images[task]
            make = partial(record, method, task, own, indices, **run.passes, progress=progress)
            identity = {
                "kind": "representations",
                "images": own.digest(),
                "indices": hashlib.sha256(indices.numpy().tobytes()).hexdigest(),
                **made_from(task),
            }
            tensors = cached(cache_dir() / "representations", identity, make)
            recordings[task] = recording(tensors, indices, len(own))
    return recordings
