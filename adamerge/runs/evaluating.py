"""A run's evaluation: its settings, pool and data, taken apart for what judges a model; and results.json from that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from adamerge.evaluation.attack import attacked
from adamerge.evaluation.baselines import baselines, predict_baselines
from adamerge.evaluation.doubts import warn_of_chance, warn_of_disagreement
from adamerge.evaluation.kept import kept_of
from adamerge.evaluation.predicting import predict_logits
from adamerge.evaluation.references import References, compared_on, read_references, write_references
from adamerge.evaluation.representations import write_representations
from adamerge.evaluation.routed import Space, joint_logits, routed
from adamerge.evaluation.scoring import scored
from adamerge.evaluation.unseen import unseen_results
from adamerge.memory import peak_memory_bytes
from adamerge.merging import Pool
from adamerge.methods.base import Method
from adamerge.progress import image_progress
from adamerge.runs.guarding import guarded
from adamerge.runs.images import Data, open_data, suite_name
from adamerge.runs.protocol import adapts_on, order_of, parts_of, protocol_of
from adamerge.runs.routing import Made
from adamerge.runs.rules import rule_name
from adamerge.runs.run import Run
from adamerge.settings import instantiate
from adamerge.settings.commands import RunSettings
from adamerge.tasks.poison import Trigger
from adamerge.tracking.journal import Journal
from adamerge.tracking.predictions import Predictions
from adamerge.tracking.provenance import versions
from adamerge.tracking.results import INDEPENDENT, Attack, Results, Routing, TaskResult

NO_ROUTERS: Mapping[str, Made] = {}


@dataclass(frozen=True)
class Evaluated:
    """The results, and the prediction for every test picture that they are counted from."""

    results: Results
    predictions: Predictions


def evaluate(
    run: Run,
    method: Method,
    pool: Pool,
    data: Data,
    references: References,
    routers: Mapping[str, Made] = NO_ROUTERS,
) -> Evaluated:
    """Accuracy and agreement of the method and of what it is compared with.

    Args:
        pool: the experts, before any rule; a finished one has none.
        references: of the same pictures; empty ones where they are not known.
        routers: by which the pictures are classified without their task as well.
    """
    settings = run.settings
    passes = run.passes
    with image_progress(f"Evaluating {run.name}", data.images) as progress:
        logits = predict_logits(method, data.images, **passes, progress=progress)
    if references.predicted:
        warn_of_chance(references.predicted["pretrained"], data.labels, pool.heads)
        predicted = {task: values.argmax(dim=-1) for task, values in logits.items()}
        warn_of_disagreement(predicted, references.experts, pool.heads)
    parts = parts_of(settings, data)
    found = scored(logits, references, data.labels, parts)
    journal = Journal(run.folder / "journal.jsonl").read() if settings.method.schedule is not None else []
    results = Results(
        run_id=run.id,
        command="train" if method.trainable_count() else "merge",
        method=run.name,
        rule=rule_name(settings),
        suite=suite_name(settings.suite),
        backbone=settings.backbone.name,
        seed=settings.seed,
        steps=len(journal),
        trainable_parameters=method.trainable_count(),
        seconds={},
        peak_memory_bytes=peak_memory_bytes(passes["device"]),
        tasks=found.tasks,
        versions=versions(),
        device=device_name(passes["device"]),
        baselines=found.baselines,
        unseen=_unseen(run, method, pool),
        attack=_attack(run, method, pool, data),
        objective=_objective(settings),
        protocol=protocol_of(settings),
        task_known=True,  # every method here classifies with the head of the image's own task
        chooser=settings.chooser if settings.choice is None else settings.choice.by,
        lineage=settings.checkpoints.name,  # the family of checkpoints that the experts belong to
        origin=settings.origin,
        stream=str(order_of(settings.stream)) if adapts_on(settings) is not None else INDEPENDENT,
        adapted=found.adapted,
        held_out=found.held_out,
        guard=guarded(journal),
        routing=_routing(run, method, data, routers),
    )
    return Evaluated(results, kept_of(logits, data.images, data.labels, parts))


def references_of(run: Run, pool: Pool, data: Data) -> References:
    """What the run is compared with on these pictures. Without the experts it is what the run folder keeps of them,
    and nothing of other pictures."""
    if pool.finished:
        return read_references(run.folder, compared_on(data.images, pool.heads))
    encoders = run.encoders(*(n for n in run.files if n != "start" and not n.startswith("heads/")))
    return predict_baselines(pool, data.images, baselines(run.arithmetic), encoders, run.passes)


def keep_references(run: Run, pool: Pool, data: Data, references: References) -> None:
    """Write into the run folder what its evaluation is compared with."""
    write_references(run.folder, references, compared_on(data.images, pool.heads))


def represent(run: Run, method: Method, pool: Pool, data: Data, shown: str) -> None:
    """Write how far the method's features are from the experts'; `shown` is the task whose clouds are drawn."""
    encoders = {task: run.encoders("base", f"experts/{task}") for task in data.images}
    write_representations(run.folder, method, pool, data.images, shown, encoders, run.passes)


def _unseen(run: Run, method: Method, pool: Pool) -> dict[str, TaskResult]:
    if not (tasks := run.inputs.unseen):
        return {}
    data = open_data(run.settings, tasks)
    return unseen_results(method, pool, data.images, data.labels, run.passes)


def _attack(run: Run, method: Method, pool: Pool, data: Data) -> dict[str, Attack]:
    """Nothing of a finished pool: what the trigger does to the experts is not known then."""
    attack = run.settings.attack
    if pool.finished:
        return {}
    trigger = Trigger(attack.target, attack.size)
    return attacked(method, pool, data.images, data.labels, attack.tasks, trigger, run.passes)


def _routing(run: Run, method: Method, data: Data, routers: Mapping[str, Made]) -> dict[str, Routing]:
    """The scores without the task, on the rows that the protocol scores."""
    rows = {task: part.scored for task, part in parts_of(run.settings, data).items()}
    found = {}
    for name, made in routers.items():
        with image_progress(f"Evaluating {run.name}, routed by {name}", data.images) as progress:
            logits = {
                task: joint_logits(method, made.router, images, **run.passes, progress=progress)
                for task, images in data.images.items()
            }
        found[name] = routed(logits, data.labels, rows, Space.of(method), made.looks_at)
    return found


def _objective(settings: RunSettings) -> str | None:
    """The method's objective with its unit; a class of the user's may have no name for it."""
    if settings.method.objective is None:
        return None
    made = instantiate(settings.method.objective)
    return str(getattr(made, "name", type(made).__name__))


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
