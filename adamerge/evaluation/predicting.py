"""Predictions, accuracy, agreement and calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot
from torchmetrics.functional.classification import multiclass_calibration_error

from adamerge.methods.base import Method
from adamerge.tasks.images import ImageSet

Progress = Callable[[int], None]  # told the number of images done


class _Where(TypedDict):
    device: torch.device
    batch_size: int


class Passes(_Where, total=False):
    """How images pass through a model without being trained on: where, how many at a time, and in which precision
    (32-true, or bf16-mixed for the encoder's pass; heads are in full precision always)."""

    precision: str


def in_precision(precision: str, device: torch.device) -> torch.autocast:
    """Inside the block, linear layers work in the precision that is named as Lightning names it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed")


@torch.no_grad()
def predict_logits(
    method: Method,
    images: Mapping[str, ImageSet],
    *,
    device: torch.device,
    batch_size: int = 500,
    precision: str = "32-true",
    progress: Progress = lambda done: None,
) -> dict[str, Tensor]:
    """Logits {task: (n, classes)}, float32, of each task's images with its own head. Merges once for all tasks."""
    return _of_all(method, method.logits, images, device, batch_size, precision, progress)


@torch.no_grad()
def predict_features(
    method: Method,
    images: Mapping[str, ImageSet],
    *,
    device: torch.device,
    batch_size: int = 500,
    precision: str = "32-true",
) -> dict[str, Tensor]:
    """Features {task: (n, d)}, float32, as each task's head sees them before it normalises them."""
    return _of_all(method, method.features, images, device, batch_size, precision)


def predict(method: Method, images: Mapping[str, ImageSet], **options: Any) -> dict[str, Tensor]:
    """Predicted classes {task: (n,)}; the options are those of `predict_logits`."""
    return {task: logits.argmax(dim=-1) for task, logits in predict_logits(method, images, **options).items()}


def _of_all(
    method: Method,
    compute: Callable[[Tensor, str], Tensor],
    images: Mapping[str, ImageSet],
    device: torch.device,
    batch_size: int,
    precision: str,
    progress: Progress = lambda done: None,
) -> dict[str, Tensor]:
    """What one of the method's functions makes of every image; merges once, or once per task where it must."""
    method.to(device).eval()

    def of_task(task: str) -> Tensor:
        parts = []
        for pixels in images[task].batches(batch_size):
            with in_precision(precision, device):
                parts.append(compute(pixels.to(device), task).float().cpu())
            progress(len(pixels))
        return torch.cat(parts)

    if not method.by_task:
        with method.merged_once():
            return {task: of_task(task) for task in images}
    found = {}
    for task in images:
        with method.merged_once(task):
            found[task] = of_task(task)
    return found


@dataclass(frozen=True)
class Score:
    """Shares between 0 and 1 of a task's images; None where they cannot be known."""

    accuracy: float | None
    agreement: float | None


def score(predicted: Tensor, labels: Tensor | None, expert: Tensor | None) -> Score:
    """Accuracy against labels (n,), and agreement with the expert's predictions (n,), which needs no labels."""
    return Score(_share(predicted, labels), _share(predicted, expert))


def _share(predicted: Tensor, reference: Tensor | None) -> float | None:
    return None if reference is None else float((predicted == reference).double().mean())


@dataclass(frozen=True)
class Calibration:
    """How far probabilities are what they say.

    Attributes:
        ece: expected calibration error, the mean over images of |accuracy - confidence| in 15 bins of equal width.
        nll: mean negative log-likelihood of the labels in nats.
        brier: mean squared distance of the probabilities to the label's unit vector, 0 to 2 (Brier 1950).
    """

    ece: float
    nll: float
    brier: float


BINS = 15


def calibration(logits: Tensor, labels: Tensor | None) -> Calibration | None:
    """Of logits (n, classes) against labels (n,); None without labels."""
    if labels is None:
        return None
    values = logits.double()
    probabilities, target = values.softmax(dim=-1), labels.to(values.device).long()
    # torchmetrics, which counts in float32, has a bin of its own for a certainty of 1; here it belongs to the last.
    below = probabilities.clamp(max=1 - torch.finfo(torch.float32).eps)
    ece = multiclass_calibration_error(below, target, values.shape[-1], n_bins=BINS, norm="l1")
    brier = (probabilities - one_hot(target, values.shape[-1])).square().sum(dim=-1).mean()
    return Calibration(float(ece), float(cross_entropy(values, target)), float(brier))
