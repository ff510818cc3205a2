"""Collapse, seen without labels: one class takes over a task's predictions, or one expert all that routers send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Collapse:
    """What has collapsed.

    Attributes:
        name: for the journal, "task/<task>" or "expert/<expert>".
        share: of the task's predictions that the class has, or of the gates that the expert has.
        words: a sentence.
    """

    name: str
    share: float
    words: str


def tasks_taken_over(predicted: Mapping[str, Tensor], certain: Mapping[str, Tensor]) -> list[Collapse]:
    """The tasks of which more than half of the predictions are of one class, at least twice as many as the expert's.

    Args:
        predicted: {task: (n,)} classes that the merged model predicts.
        certain: {task: (n, classes)} probabilities of the task's expert.
    """
    found = []
    for task, own in predicted.items():
        classes = certain[task].shape[1]
        shares = torch.bincount(own, minlength=classes).double() / len(own)
        theirs = torch.bincount(certain[task].argmax(dim=-1), minlength=classes).double() / len(own)
        share, top = float(shares.max()), int(shares.argmax())
        expert = float(theirs[top])
        if share > 0.5 and share >= 2 * expert:
            words = f"of task {task} {share:.0%} of the predictions are class {top}, of its expert's {expert:.0%}."
            found.append(Collapse(f"task/{task}", share, words))
    return found


def experts_taking_over(gates: Tensor, names: Sequence[str]) -> list[Collapse]:
    """The expert that has more of the gates' sizes than half way between an even share and all.

    Args:
        gates: (n, T) of images of all tasks alike, of every router; of either sign.
        names: of the T experts.
    """
    sizes = gates.double().abs()
    shares = (sizes / sizes.sum(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)).mean(dim=0)
    share, top = float(shares.max()), int(shares.argmax())
    if len(names) < 2 or share <= (1 + 1 / len(names)) / 2:
        return []
    words = f"the routers give {share:.0%} to the expert of {names[top]}, whichever task an image is of."
    return [Collapse(f"expert/{names[top]}", share, words)]
