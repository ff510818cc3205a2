"""SiM: the task whose images' subspace, in the pre-trained encoder's features, is nearest (arXiv 2606.22589)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import normalize, one_hot, pad

from adamerge.errors import PoolError
from adamerge.merging import Pool
from adamerge.merging.precision import wide
from adamerge.merging.spectra import triplets
from adamerge.routing.subspaces import residuals

IMAGES = 32  # of each task, as in the paper
_SHARE = 0.1  # of a feature's entries: the dimensions of a subspace


class Images(Protocol):
    """A task's images by number: (k, 3, H, W) of `images[indices]`."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: slice, /) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class SiM:
    """The task t with the smallest || (x - m_t) - V_t^T V_t (x - m_t) ||, x the image's feature of length 1.

    m_t and the rows of V_t are what is kept of each task (`subspaces`). The authors' evaluation (BAIKLAB/SiM) routes
    the encoder and goes on to classify with the true task's head; here the routed task's head classifies.

    Attributes:
        encoder: without storage; `base` are the pre-trained encoder's tensors.
        means: (T, d).
        bases: (T, r, d).
    """

    tasks: tuple[str, ...]
    encoder: nn.Module
    base: Mapping[str, Tensor]
    means: Tensor
    bases: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        nearest = residuals(_features(self.encoder, self.base, images), self.bases, self.means).argmin(dim=1)
        return one_hot(nearest, len(self.tasks)).bool()

    def map(self, fn: Callable[[Tensor], Tensor]) -> SiM:
        base = {key: fn(value) for key, value in self.base.items()}
        return replace(self, base=base, means=fn(self.means), bases=fn(self.bases))


@torch.no_grad()
def subspaces(
    pool: Pool, images: Mapping[str, Images], *, device: torch.device, batch_size: int = 64
) -> dict[str, Tensor]:
    """What SiM keeps of each of the pool's tasks: "means" (T, d) and "bases" (T, r, d).

    Args:
        pool: its base is the pre-trained encoder.
        images: a few unlabeled ones of each task, all of which are looked at.

    Raises:
        PoolError: a task without images.
    """
    if missing := [task for task in pool.tasks if task not in images or not len(images[task])]:
        raise PoolError(
            f"SiM looks at a few unlabeled images of every task; {', '.join(missing)} has none.\n"
            "  Give them, or route by mass or joint, which look at none."
        )
    base = {key: value.to(device) for key, value in pool.base.items()}
    found = []
    for task in pool.tasks:
        parts = [
            _features(pool.encoder, base, b.to(device)).cpu() for b in _batches(images[task], batch_size)
        ]
        found.append(subspace(torch.cat(parts)))
    most = max(len(basis) for _, basis in found)
    return {
        "means": torch.stack([mean for mean, _ in found]),
        "bases": torch.stack([pad(basis, (0, 0, 0, most - len(basis))) for _, basis in found]),
    }


def subspace(features: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (d,) and the leading right singular vectors (r, d) of centred features (n, d), r a tenth of d or n.

    n images span n - 1 dimensions about their mean. A direction that they do not have, which the authors' code fills
    with whatever the decomposition gives, is zeros here.
    """
    features = wide(features)
    mean = features.mean(dim=0)
    count = max(1, round(_SHARE * features.shape[1]))
    return mean, triplets(features - mean, count).present().right


def _features(encoder: nn.Module, base: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """(n, d) of length 1."""
    features: Tensor = functional_call(encoder, dict(base), (images,))
    return normalize(wide(features), dim=-1)


def _batches(images: Images, size: int) -> Iterator[Tensor]:
    for first in range(0, len(images), size):
        yield images[first : first + size]
