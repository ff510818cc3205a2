"""Evaluation while training: accuracy, agreement and the estimate on a few images, for the journal and the report."""

from __future__ import annotations

from torch import Tensor

from adamerge.evaluation.label_free import estimate
from adamerge.evaluation.predicting import predict_logits, score
from adamerge.merging import Pool
from adamerge.methods.base import Method
from adamerge.methods.static import experts
from adamerge.runs.images import Data
from adamerge.runs.protocol import parts_of
from adamerge.runs.run import Run
from adamerge.tasks.protocol import pool_rows
from adamerge.tasks.subsets import ImageSubset
from adamerge.tracking.results import mean
from adamerge.training.journaling import Watch


def watch_of(run: Run, method: Method, pool: Pool, data: Data, steps: int) -> Watch | None:
    """What `eval_every` asks for; None where it asks for nothing.

    The images are a few of those that are scored, drawn by the seed, the same at every step. The experts pass over
    them once.
    """
    settings = run.settings
    every = settings.eval_every
    if not every:
        return None
    images, labels = {}, {}
    for task, part in parts_of(settings, data).items():
        rows = part.scored[
            pool_rows(f"watched {task}", len(part.scored), settings.eval_images, settings.seed)
        ]
        known = data.labels[task]
        images[task], labels[task] = (
            ImageSubset(data.images[task], rows),
            None if known is None else known[rows],
        )
    certain = {
        task: logits.softmax(dim=-1)
        for task, logits in predict_logits(experts(pool), images, **run.passes).items()
    }

    def look() -> dict[str, float | None]:
        logits = predict_logits(method, images, **run.passes)
        return _numbers({task: values.argmax(dim=-1) for task, values in logits.items()}, labels, certain)

    return Watch(look, every, steps)


def _numbers(
    predicted: dict[str, Tensor], labels: dict[str, Tensor | None], certain: dict[str, Tensor]
) -> dict[str, float | None]:
    """Unweighted means over the tasks."""
    scores = [score(own, labels[task], certain[task].argmax(dim=-1)) for task, own in predicted.items()]
    return {
        "eval/accuracy": mean([s.accuracy for s in scores]),
        "eval/agreement": mean([s.agreement for s in scores]),
        "eval/estimate": mean([estimate(own, certain[task]).value for task, own in predicted.items()]),
    }
