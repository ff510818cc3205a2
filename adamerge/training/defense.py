"""DAM's third level: perturbations that try to change the predictions, and a mask that withstands them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from adamerge.methods.dam import DAM
from adamerge.training.batch import Batch
from adamerge.training.bilevel import Bilevel, nth, only
from adamerge.training.gradients import Losses


class DefenseAware(Bilevel):
    """Bilevel adaptation with one more step between the inner and the outer one (DAM, ICLR 2025).

    Source: tanganke/fusion_bench, clip_safe_concrete_*.

    The perturbations maximise the cross-entropy to the merged model's own clean predictions, on a task's last batch
    but one; the mask minimises objective(clean) + `weight` * objective(perturbed), on its last. With three batches
    per task no two of the steps share images; fixed coefficients need two.

    Args:
        perturbation_lr: Adam's learning rate for the perturbations.
        weight: of the perturbed images in the mask's loss.
        keeps_gradient: the coefficients' gradient of the mask's loss is added to that of the next step on them.
            FusionBench's loop clears gradients after a step rather than before, and the mask's step leaves this one.
    """

    method: DAM  # type: ignore[assignment]

    def __init__(
        self,
        *args: Any,
        perturbation_lr: float = 1.0e-4,
        weight: float = 0.1,
        keeps_gradient: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.perturbation_lr = perturbation_lr
        self.weight = weight
        self.keeps_gradient = keeps_gradient and self.learns_coefficients
        self.left: Tensor  # gradient of the coefficients that the mask's step left
        self.register_buffer("left", torch.zeros_like(self.start), persistent=self.keeps_gradient)

    def make_optimizers(self) -> list[Optimizer]:
        attack = torch.optim.Adam(self.method.perturbations.parameters(), lr=self.perturbation_lr)
        return [*super().make_optimizers(), attack]

    def coefficient_step(self, batches: Sequence[Batch], optimizer: Any, restart: bool = False) -> Losses:
        left = self.left * self.loss_scale if self.keeps_gradient else None
        losses = self.minimise(batches, [self.method.merging.values], optimizer, restart, left)
        self.left.zero_()
        return losses

    def outer_step(self, parts: Sequence[Sequence[Batch]], optimizer: Any, *others: Any) -> Losses:
        self.perturb(nth(parts, -2), *others)
        self.prepare(optimizer)
        batches, values = nth(parts, -1), self.method.merging.values
        values.grad = None
        with only(self.method, [*self.method.logits_of_mask, *([values] if self.keeps_gradient else [])]):
            losses = self.gradients.accumulate(batches, self.manual_backward)
            with torch.no_grad():
                shaken = [
                    Batch(b.task, self.method.perturbed(_images(b), b.task, bounded=True)) for b in batches
                ]
            self.gradients.accumulate(shaken, lambda loss: self.manual_backward(self.weight * loss))
        self.check_finite(losses)
        if values.grad is not None and values.grad.isfinite().all():  # not where the loss scale overflowed
            self.left.copy_(values.grad / self.loss_scale)
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
