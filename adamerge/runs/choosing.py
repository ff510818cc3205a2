"""A run's choice of its rule's scale: which merges are tried, on which images, and who judges them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from adamerge.errors import DataError
from adamerge.evaluation.choosing import Judge, best, by_experts, by_labels, scaled, tried
from adamerge.merging import Pool
from adamerge.merging.task_vectors import Statistics
from adamerge.progress import image_progress
from adamerge.runs.evaluating import references_of
from adamerge.runs.images import Data, corruption_of
from adamerge.runs.protocol import unlabeled
from adamerge.runs.rules import rule_of
from adamerge.runs.run import Run
from adamerge.runs.scales import at_scale, chooses_among, chooses_on, grid_of, own_scale, scale_option
from adamerge.tasks.images import ImageSet
from adamerge.tasks.overlap import refuse_overlap
from adamerge.tasks.protocol import AdaptOn, adapted_rows
from adamerge.tracking.results import Choice


def chosen(run: Run, pool: Pool, data: Data, statistics: Statistics | None) -> tuple[Pool, Choice | None]:
    """The pool after the rule, at its own scale or at the one that is chosen: then to the bit the pool of a run that is
    given that scale.

    Args:
        pool: the experts, before any rule.
        data: the test split.
        statistics: of unlabeled images, for a rule that needs them.

    Raises:
        DataError: no training pictures where these are looked at, test pictures among them, or no labels.
    """
    settings = run.settings
    if (choice := settings.choice) is None:
        return run.ruled(pool, statistics), None
    on, grid = chooses_on(settings), grid_of(settings)
    assert on is not None, "a choice looks at images"
    images, judge = _judged_on(run, pool, data, on)
    merges = _Merges(run, pool, statistics)
    title = f"Choosing {scale_option(settings)} among {len(grid)}"
    with image_progress(
        title, {f"{task} {scale}": own for task, own in images.items() for scale in grid}
    ) as done:
        found = tried(merges.each(grid), images, judge, run.passes, done)
    scale = best(found).scale
    sizes = {task: len(own) for task, own in images.items()}
    split = on.split if on.share is None else f"{on.share:.4g} of {on.split}"
    made = Choice(choice.by, scale_option(settings), split, sizes, own_scale(settings), scale, found)
    return merges.at(scale), made


class _Merges:
    """The merges of a rule at several scales.

    A static merge is base + coefficient * vectors. Where the scale is that coefficient, or a factor of the vectors, the
    rule makes its vectors once. A post-rule may depend on the scale: behind one the rule is made anew for each.
    """

    def __init__(self, run: Run, pool: Pool, statistics: Statistics | None) -> None:
        self._run = run
        self._pool = pool
        self._statistics = statistics
        self._count = len(pool.names)
        lowest, highest = (self._coefficient(scale) for scale in (0.5, 1.0))
        self._is_coefficient = lowest != highest
        self._unit = None if run.settings.post else self._made(1.0)

    def each(self, grid: tuple[float, ...]) -> Iterator[tuple[float, Pool]]:
        for scale in grid:
            if self._unit is None:
                yield scale, self._made(scale)
            elif self._is_coefficient:
                yield scale, scaled(self._unit, self._coefficient(scale))
            else:
                yield scale, scaled(self._unit, scale * self._coefficient(1.0))

    def at(self, scale: float) -> Pool:
        """The pool at a scale. A factor of the vectors is applied where the rule applies it: rounding is its own."""
        if self._unit is not None and self._is_coefficient:
            return scaled(self._unit, self._coefficient(scale))
        self._unit = None
        return self._made(scale)

    def _made(self, scale: float) -> Pool:
        return self._run.ruled(self._pool, self._statistics, rule_of(at_scale(self._run.settings, scale)))

    def _coefficient(self, scale: float) -> float:
        value = rule_of(at_scale(self._run.settings, scale)).coefficient(self._count)
        return self._pool.coefficients.number if value is None else value


def _judged_on(run: Run, pool: Pool, data: Data, on: AdaptOn) -> tuple[dict[str, ImageSet], Judge]:
    """The images, and who judges what is predicted of them. Of test images the experts' predictions are those that the
    evaluation compares with: they are recorded once."""
    settings = run.settings
    assert settings.choice is not None, "a scale is chosen"
    count = chooses_among(settings)
    seen = unlabeled(run, data, on, count)
    if on.split != "test" and not settings.suite.allow_overlap and corruption_of(settings.suite) is None:
        for task, images in seen.images.items():
            refuse_overlap(task, images, data.images[task])
    if settings.choice.by == "labels":
        return seen.images, by_labels(_known(seen.labels))
    if on.split == "test":
        whole = references_of(run, pool, data).certain
        rows = {
            task: adapted_rows(on, task, len(own), count, settings.seed) for task, own in data.images.items()
        }
        return seen.images, by_experts({task: whole[task][chosen_rows] for task, chosen_rows in rows.items()})
    others = Data(data.tasks, seen.images, seen.labels)
    return seen.images, by_experts(references_of(run, pool, others).certain)


def _known(labels: dict[str, Tensor | None]) -> dict[str, Tensor]:
    if missing := [task for task, own in labels.items() if own is None]:
        raise DataError(
            f"choose=labels: the validation pictures of {', '.join(missing)} have no labels.\n"
            "  Give choose=label_free: the experts judge."
        )
    return {task: torch.as_tensor(own) for task, own in labels.items()}
