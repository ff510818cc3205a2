"""DAM: Concrete subspace learning that withstands a universal perturbation per task (defense-aware merging, ICLR 2025).

Jinluan Yang et al., "Mitigating the backdoor effect for multi-task model merging via safety-aware subspace". The only
public code is FusionBench's (clip_safe_concrete_*).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from adamerge.merging import Pool
from adamerge.methods.concrete import Bilevel, Concrete, nth
from adamerge.methods.gradients import Losses
from adamerge.methods.loop import Loop, with_initial_lr
from adamerge.models.clip import pictures_of
from adamerge.rounds.batch import Batch


class DAM(Concrete):
    """Defense-aware merging: a perturbation per task stands for a backdoor's trigger.

    Args:
        pool: after any rule that keeps one encoder.
        image_size: side of the images in pixels; the encoder's when left out.
        space: in what the perturbation is added and clamped to [0, 1]. "normalised" is FusionBench's: the images after
            mean and standard deviation, of which the clamp cuts off more than half. "pixels" is their range before.
        trigger_norm: largest sum of magnitudes of a perturbation, which is scaled down to it. FusionBench's config has
            1000, but its code never reads it: None.
        options: those of Concrete.
    """

    def __init__(
        self,
        pool: Pool,
        image_size: int | None = None,
        train_coefficients: bool = True,
        space: Literal["normalised", "pixels"] = "normalised",
        trigger_norm: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(pool, train_coefficients=train_coefficients, **options)
        self._pictures = pictures_of(pool.encoder)
        side = image_size or self._pictures.size
        shape = (3, side, side)
        self.perturbations = nn.ParameterList(torch.zeros(shape) for _ in pool.tasks)
        self.space = space
        self.trigger_norm = trigger_norm

    @property
    def loop(self) -> type[Loop]:
        return DefenseAware

    def perturbation(self, task: str) -> Tensor:
        """The task's perturbation (3, S, S), within its norm."""
        delta: Tensor = self.perturbations[self.task_index(task)]
        if self.trigger_norm is None:
            return delta
        return delta * (self.trigger_norm / delta.abs().sum().clamp(min=self.trigger_norm))

    def perturbed(self, images: Tensor, task: str, bounded: bool) -> Tensor:
        """Normalised images (n, 3, H, W) with the task's perturbation, differentiable in it.

        Args:
            images: uint8 pixels, or floats, which are taken as normalised already.
            bounded: whether to clamp to [0, 1], in the space of the perturbation.
        """
        delta = self.perturbation(task)
        rules = self._pictures
        clean = rules.normalise(images, delta.dtype) if images.dtype == torch.uint8 else images
        if self.space == "normalised":
            shaken = clean + delta
            return shaken.clamp(0.0, 1.0) if bounded else shaken
        pixels = rules.denormalise(clean) + delta
        return rules.normalise((pixels.clamp(0.0, 1.0) if bounded else pixels) * 255.0, delta.dtype)


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
        return [*super().make_optimizers(), with_initial_lr(attack)]

    def coefficient_step(self, batches: Sequence[Batch], optimizer: Any, restart: bool = False) -> Losses:
        values = self.method.merging.values

        def find() -> Losses:
            if self.keeps_gradient:
                values.grad = self.left * self._scale
            losses = self.gradients.accumulate(batches, self.engine.backward)
            if restart:
                values.data.copy_(self.start)
            self.left.zero_()
            return losses

        return self.minimise(optimizer, find, [values])

    def outer_step(self, parts: Sequence[Sequence[Batch]], optimizer: Any, *others: Any) -> Losses:
        self.perturb(nth(parts, -2), *others)
        batches, values = nth(parts, -1), self.method.merging.values

        def find() -> Losses:
            values.grad = None
            losses = self.gradients.accumulate(batches, self.engine.backward)
            with torch.no_grad():
                shaken = [
                    Batch(b.task, self.method.perturbed(_images(b), b.task, bounded=True)) for b in batches
                ]
            self.gradients.accumulate(shaken, lambda loss: self.engine.backward(self.weight * loss))
            if (
                values.grad is not None and values.grad.isfinite().all()
            ):  # not where the loss scale overflowed
                self.left.copy_(values.grad / self._scale)
            return losses

        kept = [values] if self.keeps_gradient else []
        return self.minimise(optimizer, find, [*self.method.logits_of_mask, *kept])

    def perturb(self, batches: Sequence[Batch], optimizer: Any) -> None:
        """One step of each task's perturbation away from the clean predictions, at frozen merged weights."""

        def find() -> Losses:
            losses: Losses = []
            with self.method.merged_once():
                for batch in batches:
                    with torch.no_grad():
                        clean = self.method.logits(_images(batch), batch.task).argmax(dim=-1)
                    shaken = self.method.perturbed(_images(batch), batch.task, bounded=False)
                    loss = -cross_entropy(self.method.logits(shaken, batch.task), clean)
                    self.engine.backward(loss)
                    losses.append((batch.task, loss.detach()))
            return losses

        self.minimise(optimizer, find, list(self.method.perturbations))

    @property
    def _scale(self) -> float:
        return 1.0 if self.engine.loss_scale is None else self.engine.loss_scale


def _images(batch: Batch) -> Tensor:
    assert batch.images is not None
    return batch.images
