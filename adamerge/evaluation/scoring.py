"""What logits are worth beside the references: accuracy, agreement, calibration and the label-free estimate by task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from adamerge.evaluation.label_free import estimate, mean_entropy
from adamerge.evaluation.predicting import calibration, score
from adamerge.evaluation.references import EXPERTS, References
from adamerge.tasks.protocol import Parts
from adamerge.tracking.results import PartResult, Reference, TaskResult

Labels = Mapping[str, Tensor | None]


@dataclass(frozen=True)
class Scored:
    """The fields of the same names in results.json.

    Attributes:
        tasks: of the rows that the protocol scores.
        baselines: the references on the same rows.
        adapted, held_out: of the tasks whose test split was adapted on in part.
    """

    tasks: dict[str, TaskResult]
    baselines: dict[str, Reference]
    adapted: dict[str, PartResult]
    held_out: dict[str, PartResult]


def scored(
    logits: Mapping[str, Tensor], references: References, labels: Labels, parts: Mapping[str, Parts]
) -> Scored:
    """The scores of a model.

    Args:
        logits: {task: (n, classes)} on each task's test split.
        references: of the same images.
        labels: {task: (n,)}, None where there are none.
        parts: the rows that are scored, and of what was adapted on.
    """
    predicted = {task: values.argmax(dim=-1) for task, values in logits.items()}
    rows = {task: part.scored for task, part in parts.items()}
    baselines = {
        name: _reference(by_task, references.experts, labels, rows)
        for name, by_task in references.predicted.items()
    }
    own = _reference(predicted, references.experts, labels, rows)
    tasks = {
        task: _judged(
            _task_result(task, own, baselines, len(chosen)),
            logits[task][chosen],
            _at(references.certain.get(task), chosen),
            _at(labels[task], chosen),
        )
        for task, chosen in rows.items()
    }
    return Scored(
        tasks,
        baselines,
        adapted=_part(predicted, references.experts, labels, {t: p.adapted for t, p in parts.items()}),
        held_out=_part(predicted, references.experts, labels, {t: p.held_out for t, p in parts.items()}),
    )


def _judged(result: TaskResult, logits: Tensor, expert: Tensor | None, labels: Tensor | None) -> TaskResult:
    """With what the probabilities say: entropy, the label-free estimate where the expert's are known, and calibration
    where there are labels."""
    calibrated = calibration(logits, labels)
    if expert is not None:
        found = estimate(logits.argmax(dim=-1), expert)
        result = replace(result, estimate=found.value, estimate_low=found.low, estimate_high=found.high)
    return replace(
        result,
        entropy=mean_entropy(logits),
        ece=None if calibrated is None else calibrated.ece,
        nll=None if calibrated is None else calibrated.nll,
        brier=None if calibrated is None else calibrated.brier,
    )


def _part(
    predicted: Mapping[str, Tensor],
    experts: Mapping[str, Tensor],
    labels: Labels,
    rows: Mapping[str, Tensor | None],
) -> dict[str, PartResult]:
    """The score on a part of each task's test split; of the tasks that have parts."""
    chosen = {task: own for task, own in rows.items() if own is not None}
    found = _reference(predicted, experts, labels, chosen)
    return {
        task: PartResult(found.accuracy[task], found.agreement[task], len(own))
        for task, own in chosen.items()
    }


def _reference(
    predicted: Mapping[str, Tensor],
    experts: Mapping[str, Tensor],
    labels: Labels,
    rows: Mapping[str, Tensor],
) -> Reference:
    """Accuracy and agreement on some rows of each task's test split."""
    scores = {
        task: score(predicted[task][own], _at(labels[task], own), _at(experts.get(task), own))
        for task, own in rows.items()
    }
    return Reference(
        {task: s.accuracy for task, s in scores.items()}, {task: s.agreement for task, s in scores.items()}
    )


def _task_result(task: str, own: Reference, baselines: Mapping[str, Reference], n: int) -> TaskResult:
    accuracy = own.accuracy[task]
    expert, base = (
        baselines[name].accuracy[task] if name in baselines else None for name in (EXPERTS, "pretrained")
    )
    return TaskResult(
        accuracy=accuracy,
        n=n,
        expert=expert,
        pretrained=base,
        normalized=accuracy / expert if accuracy is not None and expert else None,
        agreement=own.agreement[task],
    )


def _at(values: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if values is None else values[rows]
