"""Task vectors kept as less than their entries, opened out tensor by tensor when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Protocol

import torch
from torch import Tensor

from adamerge.merging.precision import wide
from adamerge.merging.quantised import Quantised

Change = Callable[[Tensor], Tensor]


class Form(Protocol):
    """One tensor's task vectors. Its fields are tensors, but for numbers that no tensor's shape tells."""

    def dense(self) -> Tensor:
        """(T, numel), the same bits each time."""
        ...


@dataclass(frozen=True)
class Masked:
    """scale_t * mask_t * unified: one vector, with a mask and a rescaler per task (EMR-Merging, section 3).

    Attributes:
        unified: (numel,) in the type that task vectors are kept as.
        masks: (T, numel) booleans.
        scales: (T,).
    """

    unified: Tensor
    masks: Tensor
    scales: Tensor

    def dense(self) -> Tensor:
        kept = torch.where(self.masks, wide(self.unified), 0.0)
        return (self.scales.unsqueeze(1) * kept).to(self.unified.dtype)

    def to(self, dtype: torch.dtype) -> Masked:
        """With the unified vector kept in another type."""
        return replace(self, unified=self.unified.to(dtype))


@dataclass(frozen=True)
class LowRank:
    """left_t @ right_t of each matrix that the tensor holds, one below the other.

    Attributes:
        left: (matrices, T, rows, rank).
        right: (matrices, T, rank, columns).
    """

    left: Tensor
    right: Tensor

    def dense(self) -> Tensor:
        parts = [left @ right for left, right in zip(self.left, self.right, strict=True)]
        return torch.cat(parts, dim=1).flatten(1)

    def to(self, dtype: torch.dtype) -> LowRank:
        """With the factors kept in another type."""
        return LowRank(self.left.to(dtype), self.right.to(dtype))

    @property
    def nbytes(self) -> int:
        return self.left.nbytes + self.right.nbytes


def parts_of(form: Form) -> dict[str, Tensor]:
    """The tensors that a form keeps, by name."""
    values = {f.name: getattr(form, f.name) for f in fields(form)}  # type: ignore[arg-type]
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def mapped(form: Tensor | Form, fn: Change) -> Tensor | Form:
    """The same form with `fn` (a move to another device or type) applied to its tensors."""
    if isinstance(form, Tensor):
        return fn(form)
    parts = {name: fn(value) for name, value in parts_of(form).items()}
    if isinstance(form, Quantised):  # moved only: codes mean what their steps say, to the bit
        parts = {name: getattr(form, name).to(part.device) for name, part in parts.items()}
    made: Form = replace(form, **parts)  # type: ignore[type-var]
    return made


def opened(form: Tensor | Form) -> Tensor | Quantised:
    """Task vectors as a merge takes them: codes stay codes, which it opens out piece by piece."""
    return form if isinstance(form, Tensor | Quantised) else form.dense()


def kept_as(vectors: Mapping[str, Tensor]) -> torch.dtype:
    """The type that task vectors are kept as: a float type, or int8, int4 or int3 for codes."""
    if not vectors:
        return torch.float32
    return opened(next(iter(forms_of(vectors).values()))).dtype


@dataclass(frozen=True, eq=False)
class Compact(Mapping[str, Tensor]):
    """Task vectors (T, numel) by key, of which some are kept in a form. One tensor's at a time are opened out."""

    forms: Mapping[str, Tensor | Form]

    def __getitem__(self, key: str) -> Tensor:
        found = self.forms[key]
        return found if isinstance(found, Tensor) else found.dense()

    def __contains__(self, key: object) -> bool:
        return key in self.forms

    def __iter__(self) -> Iterator[str]:
        return iter(self.forms)

    def __len__(self) -> int:
        return len(self.forms)


def forms_of(vectors: Mapping[str, Tensor]) -> Mapping[str, Tensor | Form]:
    """Task vectors by key as they are kept."""
    return vectors.forms if isinstance(vectors, Compact) else vectors


def as_vectors(forms: Mapping[str, Tensor | Form]) -> Mapping[str, Tensor]:
    """A pool's task vectors from forms: a plain table where all are dense."""
    dense = {key: form for key, form in forms.items() if isinstance(form, Tensor)}
    return dense if len(dense) == len(forms) else Compact(forms)
