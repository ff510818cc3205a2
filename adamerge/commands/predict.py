"""`predict run=<folder> images=<file or folder>`: classes and probabilities of pictures.

With `task=<name>` among that task's classes; of several tasks, `task=[<name>,<name>]`, among those of each in turn.
Without one a router says of each picture which tasks it may be of. Where no one task is given, it is told beside the
class.

What cannot be read is left out, named at the end, and fails the command: a script must not take a part for the whole.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich import box
from rich.table import Table
from rich.text import Text
from torch import Tensor

from adamerge.console import plain_console
from adamerge.errors import ConfigError, DataError
from adamerge.evaluation.predicting import Progress
from adamerge.evaluation.routed import joint_logits
from adamerge.files import atomic_write_text
from adamerge.hints import near
from adamerge.methods.base import Method
from adamerge.picture_fit import Fit
from adamerge.progress import image_progress
from adamerge.routing.router import Router
from adamerge.runs.backbones import device_of, fit_for
from adamerge.runs.trained import load_without_data, router_alone
from adamerge.settings.commands import PredictSettings
from adamerge.tasks.images import ImageSet, resize_and_crop
from adamerge.tasks.picture import read_picture
from adamerge.tasks.sources.folder import pictures_below

_SHOWN = 20  # rows of the table; the file has all
_BATCH = 256
_THREADS = 4


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one picture, with their probabilities, in falling order.

    Attributes:
        tasks: of the classes; empty where one task was given.
    """

    file: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    tasks: tuple[str, ...] = ()


def run(settings: PredictSettings) -> None:
    out, place = Path(settings.out), Path(settings.images).expanduser()
    if not out.parent.is_dir():
        raise ConfigError(f"out: there is no folder {out.parent} to write {out.name} into.")
    if out.suffix not in (".csv", ".json"):
        raise ConfigError(f"out: {out.name} should end in .csv or .json, by which it is written.")
    if settings.tasks and settings.routing is not None:
        raise ConfigError(
            f"routing: finds the task of a picture, and task={','.join(settings.tasks)} gives it.\n"
            "  Leave out one of the two."
        )
    files = [place] if place.is_file() else pictures_below(place)
    model = _opened(settings)
    skipped: dict[Path, str] = {}
    root = place if place.is_dir() else place.parent
    predictions = []
    with image_progress("Classifying", {"": files}) as progress:
        for file, shares in _shares(model, files, skipped, progress):
            name = file.relative_to(root).as_posix()
            predictions += model.best(name, shares, settings.top, settings.at_least)
    if not predictions:
        raise DataError(
            f"None of the {len(files)} pictures in {place} can be read; nothing was written.{_why(skipped)}"
        )
    atomic_write_text(out, _as_json(predictions) if out.suffix == ".json" else _as_csv(predictions))
    _show(predictions, len(files) - len(skipped), out)
    if skipped:
        raise DataError(
            f"{len(skipped)} of {len(files)} pictures could not be read; {out} holds the others.{_why(skipped)}"
        )


@dataclass(frozen=True)
class _Model:
    """A finished run's method, on the device where it predicts.

    Attributes:
        classes: {task: the names of its classes}; under "" those of all tasks, where `router` finds it.
        of: the task of each column, where `router` finds it.
    """

    method: Method
    device: torch.device
    fit: Fit
    classes: Mapping[str, Sequence[str]]
    of: Sequence[str]
    router: Router | None

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Merge once for all batches where one task is given."""
        alone = next(iter(self.classes)) if self.router is None and len(self.classes) == 1 else None
        with nullcontext() if alone is None else self.method.merged_once(alone):
            yield

    def shares(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Of each of the uint8 pixels (n, 3, H, W) {task: (classes,) probabilities}, by the names in `classes`."""
        found = {task: own.softmax(dim=-1) for task, own in self._logits(images).items()}
        return [{task: own[i] for task, own in found.items()} for i in range(len(images))]

    def _logits(self, images: Tensor) -> dict[str, Tensor]:
        if self.router is None:
            on_device = images.to(self.device)
            return {task: self.method.logits(on_device, task).float().cpu() for task in self.classes}
        given = ImageSet.of(images)
        return {"": joint_logits(self.method, self.router, given, device=self.device, batch_size=_BATCH)}

    def best(self, file: str, shares: Mapping[str, Tensor], top: int, at_least: float) -> list[Prediction]:
        """A picture's most probable classes, of each task that was given. What is less probable than `at_least` is
        not told: a picture may be left without a class."""
        return [self._best(file, task, own, top, at_least) for task, own in shares.items()]

    def _best(self, file: str, task: str, shares: Tensor, top: int, at_least: float) -> Prediction:
        count = len(shares) if self.router is None else int((shares > 0).sum())
        found = shares.topk(min(top, count))
        told = int((found.values >= at_least).sum())
        columns, values = found.indices[:told].tolist(), found.values[:told].tolist()
        if self.router is not None:
            tasks = tuple(self.of[column] for column in columns)
        else:
            tasks = () if len(self.classes) == 1 else (task,) * max(1, told)
        return Prediction(file, tuple(self.classes[task][column] for column in columns), tuple(values), tasks)


def _opened(settings: PredictSettings) -> _Model:
    folder = Path(settings.run)
    opened, method, classes = load_without_data(folder)
    for task in settings.tasks:
        if task not in method.pool.tasks:
            raise ConfigError(f"task: this run has no task '{task}'; {near(task, method.pool.tasks)}")
    device = device_of(opened.settings.trainer) if torch.cuda.is_available() else torch.device("cpu")
    names = {
        task: _names(classes.get(task), method.pool.heads[task].classes)
        for task in settings.tasks or method.pool.tasks
    }
    of = [task for task, own in names.items() for _ in own]
    router = None
    if not settings.tasks:
        routing = settings.routing or "joint"
        router = router_alone(folder, method.pool, routing)
        # In the joint space a class is told with its task: others' may be called the same.
        start = "{}/" if routing == "joint" else ""
        names = {"": [start.format(task) + name for task, own in names.items() for name in own]}
    return _Model(method.to(device), device, fit_for(opened.settings.backbone), names, of, router)


def _names(known: Sequence[str] | None, count: int) -> list[str]:
    """Names of the head's rows; numbers where only a head file knew them."""
    return [f"class {i}" for i in range(count)] if known is None else list(known)


@torch.no_grad()
def _shares(
    model: _Model, files: Sequence[Path], skipped: dict[Path, str], progress: Progress
) -> Iterator[tuple[Path, dict[str, Tensor]]]:
    """The probabilities of every picture that can be read; why not, of the others, goes into `skipped`.

    One batch at a time is in memory.
    """
    with model.merged(), ThreadPoolExecutor(_THREADS) as threads:
        for first in range(0, len(files), _BATCH):
            batch = files[first : first + _BATCH]
            fits = [model.fit] * len(batch)
            decoded = dict(zip(batch, threads.map(_decoded, batch, fits), strict=True))
            pictures = {file: pixels for file, pixels in decoded.items() if not isinstance(pixels, str)}
            skipped |= {file: reason for file, reason in decoded.items() if isinstance(reason, str)}
            if pictures:
                images = torch.from_numpy(np.stack(list(pictures.values()))).permute(0, 3, 1, 2)
                yield from zip(pictures, model.shares(images), strict=True)
            progress(len(batch))


def _decoded(file: Path, fit: Fit) -> np.ndarray | str:
    """uint8 (size, size, 3), or why there are none."""
    try:
        return resize_and_crop(read_picture(file), fit)
    except DataError as error:
        return str(error).partition("\n")[0]


def _why(skipped: Mapping[Path, str]) -> str:
    """The first reasons, a line each."""
    lines = [f"\n  {reason}" for reason in list(skipped.values())[:_SHOWN]]
    more = len(skipped) - len(lines)
    return "".join(lines) + (f"\n  ... and {more} more" if more else "")


def _as_csv(predictions: Sequence[Prediction]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    told = _tasks_are_told(predictions)
    writer.writerow(["file", "rank", *(["task"] if told else []), "class", "probability"])
    for found in predictions:
        for place, (name, share) in enumerate(zip(found.classes, found.probabilities, strict=True)):
            task = found.tasks[place : place + 1]
            writer.writerow([found.file, place + 1, *task, name, f"{share:.6f}"])
        if not found.classes:
            writer.writerow([found.file, "", *((found.tasks or ("",)) if told else ()), "", ""])
    return text.getvalue()


def _tasks_are_told(predictions: Sequence[Prediction]) -> bool:
    return any(found.tasks for found in predictions)


def _as_json(predictions: Sequence[Prediction]) -> str:
    """[{"file": ..., "predictions": [{"task"?, "class", "probability"}, ...]}, ...], in full precision."""
    content = []
    for found in predictions:
        rows = [
            {"class": n, "probability": p} for n, p in zip(found.classes, found.probabilities, strict=True)
        ]
        for row, task in zip(rows, found.tasks, strict=False):
            row["task"] = task
        given = {"task": found.tasks[0]} if found.tasks and not rows else {}
        content.append({"file": found.file, **given, "predictions": rows})
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _show(predictions: Sequence[Prediction], pictures: int, out: Path) -> None:
    console = plain_console()
    told = _tasks_are_told(predictions)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("file", overflow="fold")
    if told:
        table.add_column("task")
    table.add_column("class")
    table.add_column("probability", justify="right")
    for found in predictions[:_SHOWN]:
        task = [*found.tasks[:1], ""][:1] if told else []
        best = found.classes[0] if found.classes else "not sure"
        share = f"{found.probabilities[0]:.3f}" if found.classes else ""
        table.add_row(*map(Text, [found.file, *task, best]), share)
    console.print(table)
    if len(predictions) > _SHOWN:
        console.print(f"... and {len(predictions) - _SHOWN} more")
    console.print(f"{pictures} pictures classified: {out}", highlight=False, soft_wrap=True)
