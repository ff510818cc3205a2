"""Task vectors that stay in the files: of nine checkpoints no more is in memory than the tensors at work."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.linalg import vector_norm

from adamerge.checkpoints.keys import TEXT_LEFTOVERS
from adamerge.checkpoints.reading import refuse_not_finite
from adamerge.checkpoints.sliced import SlicedCheckpoint, open_sliced
from adamerge.errors import PoolError
from adamerge.merging.quantised import BITS, Quantised, as_kept
from adamerge.merging.task_vectors import InMemory, TaskVectors, flattened
from adamerge.models.clip import Model
from adamerge.models.kinship import Sums
from adamerge.models.likeness import Lookalikes, sample, sampled
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
    # The last tensor of the base: a merge asks for it again with the stack.
    _last: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.experts)

    def base(self, key: str) -> Tensor:
        if key not in self._last:
            self._last.clear()
            self._last[key] = self.tensor(self.origin, key)
        return self._last[key]

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
        stack = torch.empty(len(self.experts), *base.shape)
        for row, expert in zip(stack, self.experts.values(), strict=True):
            if key in expert.encoder:
                torch.sub(self.tensor(expert, key), base, out=row)
            else:
                row.zero_()
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
    experts = vectors.experts
    looks = {name: _Look(vectors.shapes) for name in ("", *experts)}  # "" is the base
    changed = []
    for key in vectors.shapes:
        base = vectors.base(key)
        looks[""].at(key, base)
        differ = False
        for task, expert in experts.items():
            if key in expert.encoder:
                value = vectors.tensor(expert, key)
                looks[task].at(key, value)
                looks[task].sums.add(base, value)
                differ = differ or _differ(base, value, vectors.dtype)
        if differ:
            changed.append(key)
    refuse_not_finite(looks[""].broken, vectors.origin.source)
    for task, expert in experts.items():
        refuse_not_finite(looks[task].broken, expert.source)
        warn_of_kinship(task, looks[task].sums.kinship)
    models, twins = Lookalikes(), []
    for name, look in looks.items():
        if (other := models.like_sample(name or "the base model", look.samples)) is not None:
            twins.append(f"{name} equals {other}")
    warn_of_twins(twins)
    return tuple(changed)


class _Look:
    """What is noted of a model, tensor by tensor.

    Attributes:
        broken: the keys of tensors with numbers that are not finite.
        samples: by which models that are one and the same are found.
    """

    def __init__(self, shapes: Mapping[str, torch.Size]) -> None:
        self.broken: list[str] = []
        self.samples: dict[str, Tensor] = {}
        self.sums = Sums()
        # In one piece: small tensors that are kept among large ones that are freed keep the memory of those from
        # being used again.
        self._room = torch.empty(sum(sampled(shape.numel()) for shape in shapes.values()))

    def at(self, key: str, value: Tensor) -> None:
        # A norm is not finite where an entry is not, and is found in a fraction of the time.
        if not bool(vector_norm(value).isfinite()) and not bool(value.isfinite().all()):
            self.broken.append(key)
        found = sample(value)
        own, self._room = self._room[: len(found)], self._room[len(found) :]
        self.samples[key] = own.copy_(found)


def _differ(base: Tensor, value: Tensor, dtype: torch.dtype) -> bool:
    """Whether a task vector that is kept as `dtype` has an entry that is not 0."""
    if dtype == torch.float32:
        return not torch.equal(base, value)
    return bool((as_kept((value - base).view(1, -1), dtype) != 0).any())
