"""DAM's third level: perturbations that try to change the predictions, and a mask that withstands them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from adamerge.methods import DAM
from adamerge.training.adaptation import with_initial_lr
from adamerge.training.batch import Batch
from adamerge.training.bilevel import Bilevel, only
from adamerge.training.gradients import Losses


class DefenseAware(Bilevel):
    """Bilevel adaptation with one more step between the inner and the outer one (reference 10).

    The perturbations maximise the cross-entropy to the merged model's own clean predictions; the mask minimises
    objective(clean) + `weight` * objective(perturbed).

    Args:
        perturbation_lr: Adam's learning rate for the perturbations.
        weight: of the perturbed images in the mask's loss.
    """

    method: DAM  # type: ignore[assignment]

    def __init__(
        self, *args: Any, perturbation_lr: float = 1.0e-4, weight: float = 0.1, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self.perturbation_lr = perturbation_lr
        self.weight = weight

    def configure_optimizers(self) -> Any:
        attack = torch.optim.Adam(self.method.perturbations.parameters(), lr=self.perturbation_lr)
        return [*super().configure_optimizers(), with_initial_lr(attack)]

    def outer_step(self, batches: Sequence[Batch], optimizer: Any, *others: Any) -> Losses:
        self.perturb(batches, *others)
        self.prepare(optimizer)
        with only(self.method, list(self.method.logits_of_mask)):
            losses = self.gradients.accumulate(batches, self.manual_backward)
            with torch.no_grad():
                shaken = [
                    Batch(b.task, self.method.perturbed(_images(b), b.task, bounded=True)) for b in batches
                ]
            self.gradients.accumulate(shaken, lambda loss: self.manual_backward(self.weight * loss))
        self.check_finite(losses)
        self.take_step(optimizer)
        return losses

    def perturb(self, batches: Sequence[Batch], optimizer: Any) -> None:
        """One step of each task's perturbation away from the clean predictions, at frozen merged weights."""
        self.prepare(optimizer)
        with only(self.method, list(self.method.perturbations)), self.method.round():
            for batch in batches:
                with torch.no_grad():
                    clean = self.method.logits(_images(batch), batch.task).argmax(dim=-1)
                shaken = self.method.perturbed(_images(batch), batch.task, bounded=False)
                loss = -cross_entropy(self.method.logits(shaken, batch.task), clean)
                self.manual_backward(loss)
        self.take_step(optimizer)


def _images(batch: Batch) -> Tensor:
    assert batch.images is not None
    return batch.images
