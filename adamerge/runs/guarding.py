"""A run's guard: which of the images to adapt on are held back, who judges, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence

from adamerge.errors import DataError
from adamerge.evaluation.predicting import predict_logits
from adamerge.merging import Pool
from adamerge.methods.static import experts
from adamerge.runs.protocol import Unlabeled
from adamerge.runs.recorded import judgements
from adamerge.runs.run import Run
from adamerge.settings.sections import GuardSection
from adamerge.tasks.images import ImageSet
from adamerge.tasks.protocol import others, pool_rows
from adamerge.tasks.subsets import ImageSubset
from adamerge.tracking.journal import Record
from adamerge.tracking.results import Guarded
from adamerge.training.guard import Guard


def hold_back(given: Unlabeled, guard: GuardSection, seed: int) -> tuple[Unlabeled, dict[str, ImageSet]]:
    """The images that are adapted on, and those of each task that are held back: `guard.share` of them, drawn by the
    seed, one at least and `guard.images` at most.

    Raises:
        DataError: a task with one image.
    """
    left = Unlabeled({}, {})
    held: dict[str, ImageSet] = {}
    for task, images in given.images.items():
        total = len(images)
        if total < 2:
            raise DataError(
                f"guard: task {task} has {total} image to adapt on; none can be held back.\n"
                "  Give guard=false, or more images (suite.adapt_images)."
            )
        count = min(guard.images, max(1, round(guard.share * total)))
        rows = pool_rows(f"held back {task}", total, count, seed)
        rest = others(rows, total)
        labels = given.labels[task]
        held[task] = ImageSubset(images, rows)
        left.images[task] = ImageSubset(images, rest)
        left.labels[task] = None if labels is None else labels[rest]
    return left, held


def guard_of(run: Run, pool: Pool, held: dict[str, ImageSet]) -> Guard | None:
    """The guard over the images that are held back; None where none are.

    Args:
        pool: the experts, before any rule. They pass over the images once.
    """
    guard = run.settings.guarded
    if guard is None or not held:
        return None
    if run.settings.record:
        certain = judgements(run, pool, held)
    else:
        logits = predict_logits(experts(pool), held, **run.passes)
        certain = {task: own.softmax(dim=-1) for task, own in logits.items()}
    return Guard(
        held, certain, every=guard.every, patience=guard.patience, batch_size=run.passes["batch_size"]
    )


def guarded(journal: Sequence[Record]) -> Guarded | None:
    """What the guard of a finished training kept, from the journal's last look; None without a guard."""
    looks = [record for record in journal if record.get("guard/estimate") is not None]
    if not looks:
        return None
    last = looks[-1]
    kept = int(last["guard/kept"])
    return Guarded(
        start=last["guard/start"],
        best=last["guard/best"],
        end=last["guard/estimate"],
        kept="start" if not kept else "end" if kept == last["step"] + 1 else "best",
        round=kept,
        collapsed=tuple(
            dict.fromkeys(k.removeprefix("collapse/") for r in looks for k in r if k.startswith("collapse/"))
        ),
    )
