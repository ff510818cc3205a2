"""`predict run=<folder> images=<file or folder> task=<name>`: classes and probabilities of pictures.

What cannot be read is left out, named at the end, and fails the command: a script must not take a part for the whole.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from adamerge.files import atomic_write_text
from adamerge.hints import near
from adamerge.methods.base import Method
from adamerge.picture_fit import Fit
from adamerge.runs.backbones import device_of, fit_for
from adamerge.runs.trained import load_without_data
from adamerge.settings.commands import PredictSettings
from adamerge.tasks.images import resize_and_crop
from adamerge.tasks.picture import read_picture
from adamerge.tasks.sources.folder import pictures_below

_SHOWN = 20  # rows of the table; the file has all
_BATCH = 256
_THREADS = 4


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one picture, with their probabilities, in falling order."""

    file: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


def run(settings: PredictSettings) -> None:
    out, place = Path(settings.out), Path(settings.images).expanduser()
    if not out.parent.is_dir():
        raise ConfigError(f"out: there is no folder {out.parent} to write {out.name} into.")
    files = [place] if place.is_file() else pictures_below(place)
    opened, method, classes = load_without_data(Path(settings.run))
    if settings.task not in method.pool.tasks:
        raise ConfigError(
            f"task: this run has no task '{settings.task}'; {near(settings.task, method.pool.tasks)}"
        )
    device = device_of(opened.settings.trainer) if torch.cuda.is_available() else torch.device("cpu")
    names = _names(classes.get(settings.task), method.pool.heads[settings.task].classes)
    skipped: dict[Path, str] = {}
    shares = _shares(
        method.to(device),
        settings.task,
        files,
        fit_for(opened.settings.backbone),
        device,
        skipped,
    )
    root = place if place.is_dir() else place.parent
    predictions = [_best(file.relative_to(root), row, names, settings.top) for file, row in shares]
    if not predictions:
        raise DataError(
            f"None of the {len(files)} pictures in {place} can be read; nothing was written.{_why(skipped)}"
        )
    atomic_write_text(out, _as_csv(predictions))
    _show(predictions, out)
    if skipped:
        raise DataError(
            f"{len(skipped)} of {len(files)} pictures could not be read; {out} holds the others.{_why(skipped)}"
        )


def _names(known: Sequence[str] | None, count: int) -> list[str]:
    """Names of the head's rows; numbers where only a head file knew them."""
    return [f"class {i}" for i in range(count)] if known is None else list(known)


@torch.no_grad()
def _shares(
    method: Method,
    task: str,
    files: Sequence[Path],
    fit: Fit,
    device: torch.device,
    skipped: dict[Path, str],
) -> Iterator[tuple[Path, Tensor]]:
    """The probabilities (classes,) of every picture that can be read; why not, of the others, goes into `skipped`.

    Merges once; one batch at a time is in memory.
    """
    with method.merged_once(task), ThreadPoolExecutor(_THREADS) as threads:
        for first in range(0, len(files), _BATCH):
            batch = files[first : first + _BATCH]
            decoded = dict(zip(batch, threads.map(lambda file: _decoded(file, fit), batch), strict=True))
            pictures = {file: pixels for file, pixels in decoded.items() if not isinstance(pixels, str)}
            skipped |= {file: reason for file, reason in decoded.items() if isinstance(reason, str)}
            if pictures:
                images = torch.from_numpy(np.stack(list(pictures.values()))).permute(0, 3, 1, 2)
                shares = method.logits(images.to(device), task).float().softmax(dim=-1).cpu()
                yield from zip(pictures, shares, strict=True)


def _best(file: Path, shares: Tensor, names: Sequence[str], top: int) -> Prediction:
    best = shares.topk(min(top, len(names)))
    chosen = tuple(names[index] for index in best.indices.tolist())
    return Prediction(file.as_posix(), chosen, tuple(best.values.tolist()))


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
    writer.writerow(["file", "rank", "class", "probability"])
    for found in predictions:
        for rank, (name, share) in enumerate(zip(found.classes, found.probabilities, strict=True), start=1):
            writer.writerow([found.file, rank, name, f"{share:.6f}"])
    return text.getvalue()


def _show(predictions: Sequence[Prediction], out: Path) -> None:
    console = plain_console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("file", overflow="fold")
    table.add_column("class")
    table.add_column("probability", justify="right")
    for found in predictions[:_SHOWN]:
        table.add_row(Text(found.file), Text(found.classes[0]), f"{found.probabilities[0]:.3f}")
    console.print(table)
    if len(predictions) > _SHOWN:
        console.print(f"... and {len(predictions) - _SHOWN} more")
    console.print(f"{len(predictions)} pictures classified: {out}", highlight=False, soft_wrap=True)
