"""Task vectors that stay in the files: of nine checkpoints no more is in memory than the tensors at work."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from adamerge.checkpoints.keys import TEXT_LEFTOVERS
from adamerge.checkpoints.reading import refuse_not_finite
from adamerge.checkpoints.sliced import SlicedCheckpoint, open_sliced
from adamerge.errors import PoolError
from adamerge.merging.quantised import BITS, Quantised, as_kept
from adamerge.merging.task_vectors import InMemory, TaskVectors, flattened
from adamerge.models.clip import Model
from adamerge.models.kinship import Sums
from adamerge.models.likeness import Lookalikes, sample
from adamerge.models.open_pool import (
    NOTHING_CHANGED,
    Change,
    Misfits,
    Source,
    differences,
    fit_to_backbone,
    open_pool,
    refuse_misfits,
    warn_of_kinship,
    warn_of_text_vectors,
    warn_of_twins,
)
from adamerge.models.pictures import PictureRules

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Slices:
    """Task vectors in safetensors files, read tensor by tensor (`TaskVectors`).

    Attributes:
        origin: the base.
        experts: the T experts by name.
        shapes: of every tensor of the base, in the order of the encoder.
        keys: of the tensors that some expert changed.
        dtype: what a pool would store the task vectors as; their numbers are rounded to it.
        resize: brings positional embeddings to the backbone's size.
    """

    origin: SlicedCheckpoint
    experts: Mapping[str, SlicedCheckpoint]
    shapes: Mapping[str, torch.Size]
    keys: tuple[str, ...]
    dtype: torch.dtype
    resize: Change

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.experts)

    def base(self, key: str) -> Tensor:
        return self.tensor(self.origin, key)

    def tensor(self, checkpoint: SlicedCheckpoint, key: str) -> Tensor:
        """The tensor of a whole encoder, at the backbone's image size."""
        return self.resize({key: checkpoint.tensor(key)})[key]

    def stack(self, key: str) -> Tensor:
        differences = self._differences(key)
        return as_kept(flattened(differences), self.dtype).to(differences).view_as(differences)

    def kept(self, key: str) -> Tensor | Quantised:
        stack = flattened(self._differences(key))
        return Quantised.of(stack, self.dtype) if self.dtype in BITS else stack.to(self.dtype)

    def _differences(self, key: str) -> Tensor:
        """(T, *shape), before they are rounded."""
        base = self.base(key)
        stack = torch.zeros(len(self.experts), *base.shape)
        for row, expert in enumerate(self.experts.values()):
            if key in expert.encoder:
                stack[row] = self.tensor(expert, key) - base
        return stack


def open_vectors(
    base: Source,
    experts: Mapping[str, Source],
    backbone: Model,
    dtype: torch.dtype = torch.float32,
    pictures: PictureRules | None = None,
    resize_positions: bool = False,
) -> TaskVectors:
    """The task vectors of experts, checked as `open_pool` checks them, without heads.

    Files of safetensors stay where they are; where one source is of another form all are read into memory, and said.

    Raises:
        PoolError, CheckpointError: as `open_pool`.
    """
    opened = {name: _sliced(source) for name, source in {"": base, **experts}.items()}
    if whole := [name or "the base" for name, checkpoint in opened.items() if checkpoint is None]:
        log.warning(
            "All experts are read into memory: %s cannot be read tensor by tensor, only safetensors can "
            "(`adamerge convert <file>` makes it).",
            ", ".join(whole),
        )
        settings = {"pictures": pictures, "resize_positions": resize_positions}
        pool = open_pool(base, experts, {}, backbone, dtype, tuple(experts), **settings)  # type: ignore[arg-type]
        return InMemory(pool.names, pool.base, pool.vectors)
    sliced = {name: checkpoint for name, checkpoint in opened.items() if checkpoint is not None}
    origin = sliced.pop("")
    sliced = {name: checkpoint.on(origin) for name, checkpoint in sliced.items()}
    return _checked(origin, sliced, experts, backbone, dtype, pictures, resize_positions)


def _sliced(source: Source) -> SlicedCheckpoint | None:
    return open_sliced(source) if isinstance(source, str | Path) else None


def _checked(
    origin: SlicedCheckpoint,
    experts: Mapping[str, SlicedCheckpoint],
    sources: Mapping[str, Source],
    backbone: Model,
    dtype: torch.dtype,
    pictures: PictureRules | None,
    resize_positions: bool,
) -> Slices:
    _, outline, resize = fit_to_backbone(
        origin.outline, origin.encoder, sources, backbone, pictures, resize_positions
    )
    misfits: Misfits = {}
    for task, expert in experts.items():
        warn_of_text_vectors(task, _changed_text(expert, origin))
        shapes = resize(expert.encoder)
        if found := differences(outline, shapes):
            misfits[f"{task} ({expert.source})"] = (found, shapes)
    refuse_misfits(misfits, outline)
    shapes_of = {key: value.shape for key, value in outline.items()}
    vectors = Slices(origin, experts, shapes_of, tuple(shapes_of), dtype, resize)
    changed = _look_at_all(vectors)
    if not changed:
        raise PoolError(NOTHING_CHANGED)
    return Slices(origin, experts, shapes_of, changed, dtype, resize)


def _changed_text(expert: SlicedCheckpoint, base: SlicedCheckpoint) -> list[str]:
    return [
        key
        for key in TEXT_LEFTOVERS
        if key in expert.places and key in base.places and not torch.equal(expert.raw(key), base.raw(key))
    ]


def _look_at_all(vectors: Slices) -> tuple[str, ...]:
    """The keys that some expert changed, after one pass over all files for what can be wrong with the numbers."""
    _refuse_broken(vectors.origin)
    changed: dict[str, bool] = {}
    twins = _twins(vectors)
    for task, expert in vectors.experts.items():
        sums, broken = Sums(), []
        for key in (k for k in vectors.shapes if k in expert.encoder):
            base, value = vectors.base(key), vectors.tensor(expert, key)
            sums.add(base, value)
            rounded = as_kept((value - base).view(1, -1), vectors.dtype)
            changed[key] = changed.get(key, False) or bool((rounded != 0).any())
            if not value.isfinite().all():
                broken.append(key)
        refuse_not_finite(broken, expert.source)
        warn_of_kinship(task, sums.kinship)
    warn_of_twins(twins)
    return tuple(key for key in vectors.shapes if changed.get(key))


def _refuse_broken(checkpoint: SlicedCheckpoint) -> None:
    broken = [key for key in checkpoint.encoder if not checkpoint.tensor(key).isfinite().all()]
    refuse_not_finite(broken, checkpoint.source)


def _twins(vectors: Slices) -> list[str]:
    """The experts that are the base or another one. Before all else: small tensors that are kept among large ones that
    are freed keep the memory of those from being used again."""
    models, twins = Lookalikes(), []
    models.like_sample("the base model", {key: sample(vectors.base(key)) for key in vectors.shapes})
    for task, expert in vectors.experts.items():
        samples = {
            key: sample(vectors.tensor(expert, key)) for key in vectors.shapes if key in expert.encoder
        }
        if (other := models.like_sample(task, samples)) is not None:
            twins.append(f"{task} equals {other}")
    return twins
