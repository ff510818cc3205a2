"""A model on images whose task nobody told: a router says which tasks an image may be of, their heads the class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from adamerge.evaluation.predicting import Progress, in_precision
from adamerge.methods.base import Method
from adamerge.routing.router import Router
from adamerge.tasks.images import ImageSet
from adamerge.tracking.results import RoutedTask, Routing

_HITS = (1, 3, 5)
_UNREACHED = float("-inf")


@dataclass(frozen=True)
class Space:
    """The classes of all tasks side by side.

    Attributes:
        counts: {task: number of its classes}, in the order of the columns.
    """

    counts: dict[str, int]

    @classmethod
    def of(cls, method: Method) -> Space:
        return cls({task: method.head(task).classes for task in method.pool.tasks})

    @property
    def size(self) -> int:
        return sum(self.counts.values())

    def columns(self, task: str) -> slice:
        first = 0
        for name, count in self.counts.items():
            if name == task:
                return slice(first, first + count)
            first += count
        raise KeyError(task)

    def task_of(self) -> Tensor:
        """(size,) the number of the task of each column."""
        return torch.repeat_interleave(torch.tensor(list(self.counts.values())))


@torch.no_grad()
def joint_logits(
    method: Method,
    router: Router,
    images: ImageSet,
    *,
    device: torch.device,
    batch_size: int = 500,
    precision: str = "32-true",
    progress: Progress = lambda done: None,
) -> Tensor:
    """Logits (n, classes of all tasks), float32, by each task's own part and head; minus infinity for the classes of a
    task that the router rules out for an image."""
    method.to(device).eval()
    router = router.map(lambda tensor: tensor.to(device))
    assert router.tasks == method.pool.tasks, "a router knows the method's tasks"
    space = Space.of(method)
    found = torch.full((len(images), space.size), _UNREACHED)
    may_be = []
    with in_precision(precision, device):
        for pixels in images.batches(batch_size):
            may_be.append(router(pixels.to(device)).cpu())
        fill = _at_once if method.one_pass else _task_by_task
        for task, rows, logits in fill(method, torch.cat(may_be), images, device, batch_size):
            found[rows, space.columns(task)] = logits.float().cpu()
    progress(len(images))
    return found


Parts = Iterator[tuple[str, Tensor, Tensor]]  # (task, its rows, their logits)


def _at_once(
    method: Method, may_be: Tensor, images: ImageSet, device: torch.device, batch_size: int
) -> Parts:
    """One pass of each image, whatever the number of its candidates."""
    with method.merged_once():
        for part in torch.arange(len(images)).split(batch_size):
            encoded = method.encode(images[part].to(device))
            for task, own in zip(method.pool.tasks, may_be[part].t(), strict=True):
                if len(rows := own.nonzero().squeeze(1)):
                    chosen = tuple(each[rows.to(device)] for each in encoded)
                    yield task, part[rows], method.classify(method.correct(chosen, task)[-1], task)


def _task_by_task(
    method: Method, may_be: Tensor, images: ImageSet, device: torch.device, batch_size: int
) -> Parts:
    """A pass for each candidate: what is before the head depends on the task."""
    for task, own in zip(method.pool.tasks, may_be.t(), strict=True):
        if len(rows := own.nonzero().squeeze(1)):
            with method.merged_once(task if method.by_task else None):
                for part in rows.split(batch_size):
                    yield task, part, method.logits(images[part].to(device), task)


def routed(
    logits: Mapping[str, Tensor],
    labels: Mapping[str, Tensor | None],
    rows: Mapping[str, Tensor],
    space: Space,
    looks_at: str,
) -> Routing:
    """The scores of joint logits.

    Args:
        logits: {task: (n, classes of all tasks)} of each task's images.
        labels: {task: (n,)} within the task's own classes; None where there are none.
        rows: {task: which of its images are scored}.
    """
    tasks = {
        task: _scored(task, own[rows[task]], _at(labels[task], rows[task]), space)
        for task, own in logits.items()
    }
    return Routing(tasks, looks_at)


def _scored(task: str, logits: Tensor, labels: Tensor | None, space: Space) -> RoutedTask:
    best, columns = _best(logits, max(_HITS))
    names = list(space.counts)
    taken_for = space.task_of()[columns[:, 0]]
    counts = torch.bincount(taken_for, minlength=len(names)).tolist()
    accuracy: float | None = None
    hits3: float | None = None
    hits5: float | None = None
    if labels is not None:
        right = (columns == (labels.long() + space.columns(task).start).unsqueeze(1)) & best.isfinite()
        accuracy, hits3, hits5 = (float(right[:, :k].any(dim=1).double().mean()) for k in _HITS)
    return RoutedTask(
        float((taken_for == names.index(task)).double().mean()),
        accuracy,
        hits3,
        hits5,
        n=len(logits),
        sent={name: count for name, count in zip(names, counts, strict=True) if count},
    )


def _best(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest logits of each row and their columns; of equal ones the first column comes first."""
    found, columns = logits.sort(dim=1, descending=True, stable=True)
    return found[:, :count], columns[:, :count]


def _at(values: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if values is None else values[rows]
