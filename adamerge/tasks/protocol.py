"""Which images a method adapts on, and which are scored: the transductive and the inductive protocol.

The papers of this field adapt on the very test images that are scored (transductive). The inductive
protocol adapts on other images: on a part of the test split that is then left out of the score, or on training images.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from adamerge.errors import ConfigError, DataError

Split = Literal["test", "train", "validation"]
Protocol = Literal["transductive", "inductive", "none"]


@dataclass(frozen=True)
class AdaptOn:
    """The images that are adapted on.

    Attributes:
        split: the test split, the training split, or a tenth of the training split (the papers' "<Dataset>Val").
        share: of the test split, the part that is adapted on; the rest is scored. None is the whole split.
        cut: number of the random cut into the two parts.
    """

    split: Split = "test"
    share: float | None = None
    cut: int = 0

    @classmethod
    def of(cls, given: str | Mapping[str, Any], where: str = "suite.adapt_on") -> AdaptOn:
        """From a config's value: test, train, validation or {share: 0.5, cut: 0}.

        Raises:
            ConfigError: another value.
        """
        if isinstance(given, Mapping) and set(given) in ({"share"}, {"share", "cut"}):
            return cls(share=given["share"], cut=given.get("cut", 0))
        if given not in get_args(Split):
            raise ConfigError(
                f"{where}: expected test, train, validation, or of suite.adapt_on also {{share: 0.5}}, a part of the "
                f"test split (got {given!r})."
            )
        return cls(given)  # type: ignore[arg-type]

    @property
    def protocol(self) -> Protocol:
        """Inductive where no image that is scored is adapted on."""
        return "inductive" if self.split != "test" or self.share is not None else "transductive"


def cut_rows(task: str, total: int, share: float, number: int = 0) -> Tensor:
    """The rows of a test split that are set apart for adapting, int64 (n,), rising.

    By the task's name and the number of the cut alone: neither a run's seed nor a label matters, so that every run of
    a suite is scored on the same images.

    Raises:
        DataError: a part without images.
    """
    count = round(share * total)
    if not 0 < count < total:
        raise DataError(
            f"suite.adapt_on: a share of {share} of task {task}'s {total} test images is {count}; "
            "both parts need images."
        )
    return _drawn(f"cut {number}/{task}", total, count)


def pool_rows(task: str, total: int, count: int | None, seed: int) -> Tensor:
    """A fixed pool of `count` of a task's images, drawn by the run's seed; all for None, or where they are fewer."""
    return torch.arange(total) if count is None else _drawn(f"pool {seed}/{task}", total, count)


def others(rows: Tensor, total: int) -> Tensor:
    """The rows below `total` that are not among `rows`."""
    left = torch.ones(total, dtype=torch.bool)
    left[rows] = False
    return left.nonzero().squeeze(1)


def _drawn(name: str, total: int, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randperm(total, generator=generator)[:count].sort().values


@dataclass(frozen=True)
class Parts:
    """Rows of one task's test split.

    Attributes:
        scored: what the accuracy is of.
        adapted: what was adapted on, and `held_out` the rest; None where all or none of the split was adapted on.
    """

    scored: Tensor
    adapted: Tensor | None = None
    held_out: Tensor | None = None


def adapted_rows(on: AdaptOn, task: str, total: int, images: int | None, seed: int) -> Tensor:
    """The rows of a test split that are adapted on: the share of it that `on` cuts off, and a pool of these."""
    part = torch.arange(total) if on.share is None else cut_rows(task, total, on.share, on.cut)
    return part[pool_rows(task, len(part), images, seed)]


def test_parts(
    task: str, total: int, suite: AdaptOn, own: AdaptOn | None, images: int | None, seed: int
) -> Parts:
    """How a task's test split is scored.

    Args:
        suite: what the suite says: where it cuts the test split, every run is scored on the part that is left.
        own: what this run adapts on; None for a run that adapts on no unlabeled image. Where the split is cut it is
            scored on both parts as well: how far they differ by themselves.
        images: size of the pool that is adapted on.
        seed: the run's.
    """
    if suite.share is not None:
        part = cut_rows(task, total, suite.share, suite.cut)
        used = adapted_rows(suite, task, total, images if own == suite else None, seed)
        return Parts(others(part, total), used, others(part, total))
    every = torch.arange(total)
    used = adapted_rows(own, task, total, images, seed) if own == AdaptOn() else every
    return Parts(every) if len(used) == total else Parts(every, used, others(used, total))
