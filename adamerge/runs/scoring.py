"""What a model is worth: accuracy and agreement on the suite, on unseen tasks, and under an attack."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import version

import torch

from adamerge.checkpoints.cached import cached
from adamerge.digests import digest
from adamerge.errors import DataError
from adamerge.evaluation.label_free import estimate, mean_entropy, near_chance
from adamerge.evaluation.predicting import calibration, predict, predict_logits, score
from adamerge.memory import peak_memory_bytes
from adamerge.merging import Pool
from adamerge.methods.base import Method
from adamerge.methods.static import Static, experts
from adamerge.models.heads import head_digest
from adamerge.progress import image_progress
from adamerge.rules.linear import Individual, Pretrained, WeightAverage
from adamerge.runs.backbones import device_of
from adamerge.runs.images import Data, open_data, suite_name
from adamerge.runs.protocol import adapts_on, order_of, parts_of, protocol_of
from adamerge.runs.references import read_references, write_references
from adamerge.runs.run import Run
from adamerge.settings import cache_dir, instantiate
from adamerge.settings.commands import RunSettings
from adamerge.tasks.images import ImageSet
from adamerge.tasks.poison import Trigger
from adamerge.tracking.journal import Journal
from adamerge.tracking.results import INDEPENDENT, Attack, PartResult, Reference, Results, TaskResult

log = logging.getLogger(__name__)


def baselines(run: Run) -> dict[str, Callable[[Pool], Pool]]:
    """What every run is compared with. The names are those of the rules."""
    return {
        "pretrained": Pretrained(),
        "weight_average": WeightAverage(),
        "task_arithmetic": run.arithmetic,
        "individual": Individual(),
    }


def evaluate(run: Run, method: Method, pool: Pool, data: Data) -> Results:
    """Accuracy and agreement of the method and of what it is compared with.

    `pool` has the experts; a finished one has none: then the comparison is what the run folder keeps of it, which is of
    the pictures that the run was evaluated on, and with other pictures it is not known.
    """
    settings = run.settings
    device = device_of(settings.trainer)
    predictions, certain = _baseline_predictions(run, pool, data)
    with image_progress(f"Evaluating {run.name}", data.images) as progress:
        logits = predict_logits(method, data.images, **run.passes, progress=progress)
    predicted = {task: values.argmax(dim=-1) for task, values in logits.items()}
    teachers = predictions.get("individual", {})
    if predictions:
        _warn_of_chance(predictions["pretrained"], pool, data)
        _warn_of_disagreement(predicted, teachers, pool)
    parts = parts_of(settings, data)
    scored = {task: part.scored for task, part in parts.items()}
    baselines = {name: _reference(by_task, teachers, data, scored) for name, by_task in predictions.items()}
    own = _reference(predicted, teachers, data, scored)
    tasks = {
        task: _judged(
            _task_result(task, own, baselines, len(rows)),
            logits[task][rows],
            _at(certain.get(task), rows),
            _at(data.labels[task], rows),
        )
        for task, rows in scored.items()
    }
    schedule = settings.method.schedule
    return Results(
        run_id=run.id,
        command="train" if method.trainable_count() else "merge",
        method=run.name,
        rule=settings.rule.name,
        suite=suite_name(settings.suite),
        backbone=settings.backbone.name,
        seed=settings.seed,
        steps=len(Journal(run.folder / "journal.jsonl").read()) if schedule is not None else 0,
        trainable_parameters=method.trainable_count(),
        seconds={},
        peak_memory_bytes=peak_memory_bytes(device),
        tasks=tasks,
        versions=versions(),
        device=device_name(device),
        baselines=baselines,
        unseen=_unseen(run, method, pool),
        attack=_attack(run, method, pool, data),
        objective=_objective(settings),
        protocol=protocol_of(settings),
        task_known=True,  # every method here classifies with the head of the image's own task
        chooser=settings.chooser,
        lineage=lineage_of(settings),
        stream=str(order_of(settings.stream)) if adapts_on(settings) is not None else INDEPENDENT,
        adapted=_part(predicted, teachers, data, {t: p.adapted for t, p in parts.items()}),
        held_out=_part(predicted, teachers, data, {t: p.held_out for t, p in parts.items()}),
    )


def _objective(settings: RunSettings) -> str | None:
    """The method's objective with its unit; a class of the user's may have no name for it."""
    if settings.method.objective is None:
        return None
    made = instantiate(settings.method.objective)
    return str(getattr(made, "name", type(made).__name__))


def lineage_of(settings: RunSettings) -> str:
    """The family of checkpoints that the experts belong to."""
    return settings.checkpoints.name


def _judged(
    result: TaskResult, logits: torch.Tensor, expert: torch.Tensor | None, labels: torch.Tensor | None
) -> TaskResult:
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


def _at(values: torch.Tensor | None, rows: torch.Tensor) -> torch.Tensor | None:
    return None if values is None else values[rows]


def _part(
    predicted: dict[str, torch.Tensor],
    teachers: dict[str, torch.Tensor],
    data: Data,
    rows: Mapping[str, torch.Tensor | None],
) -> dict[str, PartResult]:
    """The score on a part of each task's test split; of the tasks that have parts."""
    chosen = {task: own for task, own in rows.items() if own is not None}
    found = _reference(predicted, teachers, data, chosen)
    return {
        task: PartResult(found.accuracy[task], found.agreement[task], len(own))
        for task, own in chosen.items()
    }


def _warn_of_chance(predicted: dict[str, torch.Tensor], pool: Pool, data: Data) -> None:
    """A base at chance level mostly means that heads, class names and labels are in different orders."""
    for task, labels in data.labels.items():
        if labels is None:
            continue
        accuracy, classes = score(predicted[task], labels, None).accuracy, pool.heads[task].classes
        chance = 1 / classes
        # Two standard deviations above guessing.
        if accuracy is not None and accuracy < chance + 2 * (chance * (1 - chance) / len(labels)) ** 0.5:
            log.warning(
                "Task %s: the base's zero-shot accuracy is %.1f %%, that of guessing among %d classes. "
                "Are head, class names and labels in the same order?",
                task, 100 * accuracy, classes,
            )  # fmt: skip


def _warn_of_disagreement(
    predicted: dict[str, torch.Tensor], teachers: dict[str, torch.Tensor], pool: Pool
) -> None:
    """A model that knows nothing of its experts is no result but a mistake; this needs no labels."""
    tasks = [
        task for task in predicted if near_chance(predicted[task], teachers[task], pool.heads[task].classes)
    ]
    if tasks:
        log.warning(
            "%s: the predictions agree with the expert's no more often than by chance. Usual causes: a base that "
            "the experts do not come from, another activation (QuickGELU or GELU) than theirs, a merging "
            "coefficient or learning rate that is too large, heads or pictures of another task. `doctor` with the "
            "same options compares the base and names the activation.",
            ", ".join(tasks),
        )  # fmt: skip


def _unseen(run: Run, method: Method, pool: Pool) -> dict[str, TaskResult]:
    """Accuracy on the tasks without an expert, with their zero-shot heads."""
    settings = run.settings
    tasks = run.inputs.unseen
    if not tasks:
        return {}
    data = open_data(settings, tasks)
    own = predict(method, data.images, **run.passes)
    base = {} if pool.finished else predict(Static(Pretrained()(pool)), data.images, **run.passes)
    return {
        task: TaskResult(
            accuracy=score(own[task], labels, None).accuracy,
            n=len(data.images[task]),
            expert=None,
            pretrained=score(base[task], labels, None).accuracy if task in base else None,
            normalized=None,
            agreement=None,
        )
        for task, labels in data.labels.items()
    }


def _attack(run: Run, method: Method, pool: Pool, data: Data) -> dict[str, Attack]:
    """What the trigger does to the tasks whose expert has a backdoor."""
    found: dict[str, Attack] = {}
    if pool.finished:
        return found  # what the trigger does to the experts is not known
    for task in run.settings.attack.tasks:
        labels = data.labels[task]
        if labels is None:
            raise DataError(
                f"attack: the success on '{task}' needs to know which images are of the target class."
            )
        trigger = Trigger(run.settings.attack.target, run.settings.attack.size)
        (others,) = torch.nonzero(labels != trigger.target, as_tuple=True)
        clean = data.images[task][others]
        images = {"marked": trigger(clean), "clean": clean}
        models = {
            "success": (method, "marked"),
            "expert": (experts(pool), "marked"),
            "weight_average": (Static(WeightAverage()(pool)), "marked"),
            "clean": (method, "clean"),
        }
        shares = {}
        for name, (model, kind) in models.items():
            predicted = predict(model, {task: ImageSet.of(images[kind])}, **run.passes)[task]
            shares[name] = float((predicted == trigger.target).double().mean())
        found[task] = Attack(**shares)
    return found


_CERTAIN = "certainty of "


def _baseline_predictions(
    run: Run, pool: Pool, data: Data
) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    """Predictions {baseline: {task: (n,)}} and the experts' probabilities {task: (n, classes)}.

    They depend on the checkpoints and images only and are computed once per machine. Without the experts they are those
    of the run folder, and none of other pictures.
    """
    if pool.finished:
        return read_references(run.folder, _compared_on(pool, data)) or ({}, {})
    rules = baselines(run)
    shared = {
        "kind": "predictions",
        **run.encoders(*(n for n in run.files if n != "start" and not n.startswith("heads/"))),
        "images": {task: images.digest() for task, images in data.images.items()},
        "heads": {task: head_digest(head) for task, head in pool.heads.items()},
    }

    def make(name: str) -> dict[str, torch.Tensor]:
        with image_progress(f"Evaluating {name}", data.images) as progress:
            logits = predict_logits(Static(rules[name](pool)), data.images, **run.passes, progress=progress)
        found = {task: values.argmax(dim=-1) for task, values in logits.items()}
        if name == "individual":
            found |= {_CERTAIN + task: values.softmax(dim=-1).half() for task, values in logits.items()}
        return found

    folder = cache_dir() / "predictions"
    predictions = {}
    for name, rule in rules.items():
        made_from = {**shared, "baseline": repr(rule)} | (
            {"with": "certainty"} if name == "individual" else {}
        )
        predictions[name] = cached(folder, made_from, partial(make, name))
    certain = {task: predictions["individual"].pop(_CERTAIN + task).float() for task in data.images}
    return predictions, certain


def keep_references(run: Run, pool: Pool, data: Data) -> None:
    """Write into the run folder what its evaluation is compared with."""
    write_references(run.folder, *_baseline_predictions(run, pool, data), _compared_on(pool, data))


def _compared_on(pool: Pool, data: Data) -> dict[str, str]:
    """{task: what predictions of an encoder depend on beside it}: the pictures and the head."""
    return {
        task: digest({"images": images.digest(), "head": head_digest(pool.heads[task])})
        for task, images in data.images.items()
    }


def _reference(
    predicted: dict[str, torch.Tensor],
    teachers: dict[str, torch.Tensor],
    data: Data,
    rows: Mapping[str, torch.Tensor],
) -> Reference:
    """Accuracy and agreement on some rows of each task's test split."""
    scores = {
        task: score(predicted[task][own], _at(data.labels[task], own), _at(teachers.get(task), own))
        for task, own in rows.items()
    }
    return Reference(
        {task: s.accuracy for task, s in scores.items()}, {task: s.agreement for task, s in scores.items()}
    )


def _task_result(task: str, own: Reference, baselines: dict[str, Reference], n: int) -> TaskResult:
    accuracy = own.accuracy[task]
    expert, base = (
        baselines[name].accuracy[task] if name in baselines else None for name in ("individual", "pretrained")
    )
    return TaskResult(
        accuracy=accuracy,
        n=n,
        expert=expert,
        pretrained=base,
        normalized=accuracy / expert if accuracy is not None and expert else None,
        agreement=own.agreement[task],
    )


def versions() -> dict[str, str]:
    names = ("adamerge", "torch", "torchvision", "pytorch-lightning", "open_clip_torch", "numpy")
    return {name: version(name) for name in names}


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
