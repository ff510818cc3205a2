"""Never worse than where it started: the experts judge a few images that are held back, and the best state is kept."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from adamerge.evaluation.collapse import Collapse, experts_taking_over, tasks_taken_over
from adamerge.evaluation.label_free import estimate
from adamerge.evaluation.predicting import Passes, predict_logits
from adamerge.merging import Pool
from adamerge.methods.static import experts
from adamerge.methods.wemoe import gates_seen
from adamerge.tasks.images import ImageSet
from adamerge.training.adaptation import Adaptation
from adamerge.training.journaling import unnoticed

log = logging.getLogger(__name__)


class Guard(pl.Callback):
    """Judges the model on held-back images by the label-free estimate, and keeps the state that is judged best.

    It looks before the first round, every `every` rounds and after the last one. A state is better where the mean over
    the tasks of its estimated accuracy (evaluation/label_free.py) is larger; of equal ones the earlier is kept, the
    start included. After `patience` looks without a better state the training ends. What was kept, whether it ended
    and the state itself go into the checkpoint. Random numbers and modes are put back, so that looking changes no
    round; a loop whose first rounds leave no model behind (`Loop.guarded_from`) is looked at after them.

    Where a class takes over a task's predictions, or an expert all routers' gates, which was not so at the start, that
    is warned of and noted in the journal when it is first seen.

    Args:
        images: {task: images} that are never adapted on: an ImageSet, or uint8 pixels (n, 3, size, size).
        certain: {task: (n, classes)} the probabilities that each task's expert gives to these images; or the experts'
            pool, before any rule, which then passes over them once.
        every: rounds between two looks.
        patience: looks without a better state after which the training ends.
        batch_size: images in a pass.

    Attributes:
        noted: what the last look found, for the journal; None before any.

    Raises:
        ValueError: no images; every or patience below 1.
    """

    def __init__(
        self,
        images: Mapping[str, ImageSet | Tensor],
        certain: Mapping[str, Tensor] | Pool,
        *,
        every: int = 10,
        patience: int = 5,
        batch_size: int = 500,
    ) -> None:
        if every < 1 or patience < 1:
            raise ValueError(f"guard: every and patience should be 1 at least (got {every} and {patience})")
        if not images or not all(map(len, images.values())):
            raise ValueError("guard: each task needs an image that is held back (got none)")
        self.images = {t: ImageSet.of(x) if isinstance(x, Tensor) else x for t, x in images.items()}
        self.certain = certain
        self.every = every
        self.patience = patience
        self.batch_size = batch_size
        self.noted: dict[str, float] | None = None
        self._start: float | None = None
        self._best = 0.0
        self._kept = 0  # rounds behind the state that is kept
        self._waited = 0  # looks since then
        self._named: list[str] = []  # what has collapsed and is named already
        self._state: dict[str, Tensor] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Adaptation)
        if self._start is None:
            self._start, collapsed = self._look(pl_module)
            self._named = [where.name for where in collapsed]  # not the adaptation's doing
            self._keep(pl_module, self._start)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Adaptation)
        done, last = pl_module.step, pl_module.loop.schedule.steps
        if done != last and (done % self.every or done <= pl_module.loop.guarded_from):
            return
        value, collapsed = self._look(pl_module)
        if value > self._best:
            self._keep(pl_module, value)
        else:
            self._waited += 1
        assert self._start is not None
        self.noted = {
            "guard/estimate": value,
            "guard/start": self._start,
            "guard/best": self._best,
            "guard/kept": self._kept,
        }
        pl_module.record |= self.noted | self._new(collapsed, done)
        if self._waited >= self.patience and done < last:
            pl_module.stopped = trainer.should_stop = True

    def put_back(self, module: Adaptation) -> None:
        """Give the method the state that is kept."""
        module.loop.method.load_state_dict(self._state)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on from; the settings are the run's."""
        return {
            "start": self._start,
            "best": self._best,
            "kept": self._kept,
            "waited": self._waited,
            "named": self._named,
            "noted": self.noted,
            "state": self._state,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._start, self._best = state_dict["start"], state_dict["best"]
        self._kept, self._waited = state_dict["kept"], state_dict["waited"]
        self._named, self.noted, self._state = state_dict["named"], state_dict["noted"], state_dict["state"]

    def _keep(self, module: Adaptation, value: float) -> None:
        self._best, self._kept, self._waited = value, module.step, 0
        self._state = {key: x.detach().clone() for key, x in module.loop.method.state_dict().items()}

    def _look(self, module: Adaptation) -> tuple[float, list[Collapse]]:
        """The mean estimate over the tasks, and what has collapsed."""
        method = module.loop.method
        passes: Passes = {"device": module.device, "batch_size": self.batch_size}
        with unnoticed(module), gates_seen(method) as gates:
            if isinstance(self.certain, Pool):
                logits = predict_logits(experts(self.certain), self.images, **passes)
                self.certain = {task: own.softmax(dim=-1) for task, own in logits.items()}
                gates.clear()
            found = predict_logits(method, self.images, **passes)
        predicted = {task: logits.argmax(dim=-1) for task, logits in found.items()}
        values = [estimate(own, self.certain[task]).value for task, own in predicted.items()]
        collapsed = tasks_taken_over(predicted, self.certain)
        if gates:
            collapsed += experts_taking_over(torch.cat(gates), method.pool.names)
        return sum(values) / len(values), collapsed

    def _new(self, collapsed: list[Collapse], done: int) -> dict[str, float]:
        """Name what collapsed since the last look; its entries in the journal."""
        new = [where for where in collapsed if where.name not in self._named]
        for where in new:
            log.warning("Collapse after round %d: %s The best state is kept.", done, where.words)
        self._named = [where.name for where in collapsed]
        return {f"collapse/{where.name}": where.share for where in new}
