"""What a run adapts on, in which order, and which part of the test split it is scored on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from adamerge.errors import DataError
from adamerge.objectives.objective import Objective
from adamerge.runs.backbones import fit_for
from adamerge.runs.images import Data, corruption_of, image_set, kept_at, suite_adapts_on
from adamerge.runs.rules import rule_images, rule_sees
from adamerge.runs.run import Run
from adamerge.runs.scales import chooses_among, chooses_on
from adamerge.settings import instantiate
from adamerge.settings.commands import RunSettings
from adamerge.settings.sections import StreamSection
from adamerge.tasks.images import ImageSet
from adamerge.tasks.orders import Order
from adamerge.tasks.overlap import refuse_overlap
from adamerge.tasks.protocol import AdaptOn, Parts, Protocol, adapted_rows, pool_rows, test_parts
from adamerge.tasks.stream import Stream
from adamerge.tasks.subsets import ImageSubset, PictureSubset, Validation
from adamerge.tasks.task import Task, check
from adamerge.training.recording import shown_images


@dataclass(frozen=True)
class Unlabeled:
    """The images to adapt on by task. The labels build a stream's order; training never sees them."""

    images: dict[str, ImageSet]
    labels: dict[str, Tensor | None]


def objective_of(settings: RunSettings) -> Objective | None:
    """What is minimised; None where nothing is trained."""
    if settings.method.schedule is None or settings.method.objective is None:
        return None
    objective: Objective = instantiate(settings.method.objective)
    return objective


def adapts_on(settings: RunSettings) -> AdaptOn | None:
    """The unlabeled images that the run adapts on: the method's own choice, or the suite's. None: it needs none."""
    objective = objective_of(settings)
    if objective is None or objective.target == "labels":
        return None
    own = settings.method.adapt_on
    if own is None:
        return suite_adapts_on(settings.suite)
    return AdaptOn.of(own, "method.adapt_on")  # a share of the test split is for the suite to cut


def protocol_of(settings: RunSettings) -> Protocol:
    """Transductive where images that are scored are seen by the method, its rule or the choice of its scale; "none"
    where none of them sees any.

    Labelled training images are not scored: what learns from them alone is inductive.
    """
    looking = (adapts_on(settings), rule_sees(settings), chooses_on(settings))
    seen = [on.protocol for on in looking if on is not None]
    if "transductive" in seen:
        return "transductive"
    return "inductive" if seen or settings.method.schedule is not None else "none"


def order_of(stream: StreamSection) -> Order:
    """In which order images come to what adapts on them."""
    least_most = None if stream.classes is None else (stream.classes[0], stream.classes[1])
    return Order(stream.order, least_most, stream.gamma, stream.slots, stream.mixed_tasks)


def parts_of(settings: RunSettings, data: Data) -> dict[str, Parts]:
    """How each task's test split is scored."""
    suite = suite_adapts_on(settings.suite)
    own, images = _seen_of_test(settings)
    return {
        task: test_parts(task, len(found), suite, own, images, settings.seed)
        for task, found in data.images.items()
    }


def _seen_of_test(settings: RunSettings) -> tuple[AdaptOn | None, int | None]:
    """What the method, its rule and the choice of its scale see, test images before others, and how many of each task:
    pools of the same images lie within each other."""
    seen = [
        (adapts_on(settings), settings.suite.adapt_images),
        (rule_sees(settings), rule_images(settings)),
        (chooses_on(settings), chooses_among(settings)),
    ]
    seen = [(on, count) for on, count in seen if on is not None]
    of_test = [(on, count) for on, count in seen if on is not None and on.split == "test"]
    if not of_test:
        return seen[0] if seen else (None, None)
    counts = [count for _, count in of_test]
    return of_test[0][0], None if None in counts else max(count for count in counts if count is not None)


def unlabeled(run: Run, data: Data, on: AdaptOn, count: int | None, who: str | None = None) -> Unlabeled:
    """The images that the run adapts on.

    Args:
        data: the test split.
        on: of which split.
        count: of each task so many, drawn by the seed; None: all.
        who: adapts on them, where it is not the run's method.

    Raises:
        DataError: no training pictures, or test pictures among them.
    """
    if on.split == "test":
        return _of_test(run.settings, data, on, count)
    images: dict[str, ImageSet] = {}
    labels: dict[str, Tensor | None] = {}
    for task in data.tasks:
        images[task.name], labels[task.name] = _of_training(run.settings, task, on, count, who or run.name)
    return Unlabeled(images, labels)


def looked_at(
    run: Run, data: Data, on: AdaptOn, count: int | None, who: str | None = None
) -> dict[str, ImageSet]:
    """The unlabeled images {task: images} that something is made from without adapting step by step.

    Raises:
        DataError: no training pictures, or test pictures among them.
    """
    images, suite = unlabeled(run, data, on, count, who).images, run.settings.suite
    if on.split != "test" and not suite.allow_overlap and corruption_of(suite) is None:
        for task, seen in images.items():
            refuse_overlap(task, seen, data.images[task])
    return images


def _of_test(settings: RunSettings, data: Data, on: AdaptOn, count: int | None) -> Unlabeled:
    images, labels = dict(data.images), dict(data.labels)
    for task, whole in data.images.items():
        rows = adapted_rows(on, task, len(whole), count, settings.seed)
        if len(rows) < len(whole):
            own = labels[task]
            images[task], labels[task] = ImageSubset(whole, rows), None if own is None else own[rows]
    return Unlabeled(images, labels)


def _of_training(
    settings: RunSettings, task: Task, on: AdaptOn, count: int | None, name: str
) -> tuple[ImageSet, Tensor | None]:
    """One task's training or validation images, as the test split never shows them."""
    held_out = on.split == "validation"
    opened = replace(task, source=Validation(task.source), sizes={}) if held_out else task
    split = "test" if held_out else "train"
    try:
        check(opened, split)
        pictures, labels = opened.source.images(split), opened.source.labels(split)
    except DataError as error:
        raise DataError(
            f"{name} adapts on {on.split} images. {error}\n"
            "  Give them, or method.adapt_on=test to adapt on the test images (suite.adapt_on where the suite says so, "
            "rule.adapt_on where the rule does)."
        ) from error
    fit = fit_for(settings.backbone)
    found = None if labels is None else torch.as_tensor(labels)
    if count is not None:
        rows = pool_rows(task.name, len(pictures), count, settings.seed)
        pictures, found = PictureSubset(pictures, rows.numpy()), None if found is None else found[rows]
    keep = settings.suite.decode_cache and count is None
    kept = kept_at(opened, split, fit) if keep else None
    return image_set(pictures, fit, None, kept, task.name), found


def refuse_test_images(
    run: Run, stream: Stream, held: Mapping[str, ImageSet], data: Data, on: AdaptOn
) -> None:
    """Check that no training image that the stream shows, or that a guard holds back, is a test image.

    Raises:
        DataError: some are.
    """
    suite = run.settings.suite
    if on.split == "test" or suite.allow_overlap or corruption_of(suite) is not None:
        return
    for task, images in stream.image_sets.items():
        refuse_overlap(task, ImageSubset(images, shown_images(stream, task)), data.images[task])
    for task, images in held.items():
        refuse_overlap(task, images, data.images[task])
