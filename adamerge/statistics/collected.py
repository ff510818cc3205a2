"""Statistics of unlabeled images by kind: each is collected of every expert when a rule first asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from adamerge.errors import PoolError
from adamerge.merging import Pool
from adamerge.merging.walk import Walk
from adamerge.statistics.activations import collect_activations
from adamerge.statistics.entering import Images
from adamerge.statistics.fisher import collect_fisher
from adamerge.statistics.grams import collect_grams
from adamerge.statistics.walking import Walking

Kind = Literal["gram", "fisher", "activation"]
Tables = Mapping[str, Mapping[str, Tensor]]  # {expert: {key: its statistic}}
Walks = Callable[[Mapping[str, Tensor]], AbstractContextManager[Walk]]


class Collected:
    """Statistics (`adamerge.merging.task_vectors.Statistics`), of which each kind is collected once.

    Args:
        tables: gives all experts' tables of a kind.
        walks: begins a walk through a merge; None: there are no images to walk with.
    """

    def __init__(self, tables: Callable[[Kind], Tables], walks: Walks | None = None) -> None:
        self._tables = cache(tables)
        self._walks = walks

    def gram(self, expert: str, key: str) -> Tensor | None:
        return self._tables("gram")[expert].get(key)

    def fisher(self, expert: str, key: str) -> Tensor | None:
        return self._tables("fisher")[expert].get(key)

    def activation(self, expert: str, key: str) -> Tensor | None:
        return self._tables("activation")[expert].get(key)

    def walk(self, merged: Mapping[str, Tensor]) -> AbstractContextManager[Walk]:
        if self._walks is None:
            raise PoolError("This rule walks with images through the merge, and these statistics keep none.")
        return self._walks(merged)


def statistics_in_memory(pool: Pool, images: Mapping[str, Images]) -> Collected:
    """The statistics of every expert on images of its own task, in memory.

    Raises:
        PoolError: an expert without images; when they are asked for, an encoder without transformer blocks.
    """
    refuse_missing(pool.names, images)
    cpu = torch.device("cpu")
    return Collected(
        lambda kind: {n: collect(kind, pool, n, images[n], device=cpu) for n in pool.names},
        lambda merged: nullcontext(Walking(pool, images, merged, device=cpu)),
    )


def collect(kind: Kind, pool: Pool, name: str, images: Images, **passes: Any) -> dict[str, Tensor]:
    """One kind of statistics on the images of one expert's task, by key.

    Args:
        passes: device, batch_size and progress of the pass.
    """
    if kind == "gram":
        return collect_grams(pool.encoder, pool.expert(name), images, **passes)
    if kind == "activation":
        return collect_activations(pool.encoder, pool.base, images, **passes)
    if name not in pool.heads:
        raise PoolError(
            f"Fisher information is of a model's predictions, and {name} has no head.\n  Give heads={{...}}."
        )
    return collect_fisher(pool.encoder, pool.expert(name), pool.heads[name], images, **passes)


def refuse_missing(names: tuple[str, ...], images: Mapping[str, Any]) -> None:
    """Raise a PoolError where an expert has no images."""
    if missing := [name for name in names if name not in images or not len(images[name])]:
        raise PoolError(
            f"This rule looks at images of every expert's task; {', '.join(missing)} has none.\n"
            "  Leave the expert out, or give a rule without images."
        )
