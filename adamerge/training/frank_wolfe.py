"""The two loops of FW-Merging: labelled gradients choose experts, the merged model moves towards them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from adamerge.errors import RunError
from adamerge.methods.frank_wolfe import FrankWolfe
from adamerge.objectives.labels import CrossEntropy
from adamerge.training.adaptation import Adaptation, summed
from adamerge.training.batch import Batch, Given
from adamerge.training.bilevel import only
from adamerge.training.gradients import Gradients, Losses


class HardSteps(Adaptation):
    """Each step is one iteration t: towards the expert whose parameters point most against the gradient.

        lambda <- lambda + 0.1 * 2 / (t + 2) * scale * (vertex - lambda)

    where the vertex is one expert, or the merged model that the iterations started from, and the gradient is that of
    the mean cross-entropy over the tasks (arXiv 2503.12649).

    Args:
        scale: the task-arithmetic coefficient in the step size.
        choose: one vertex for the whole "model" (the sum of the layers' cosines; FusionBench's config), or one per
            "layer" (the authors' code, and the paper's figures for images).
    """

    method: FrankWolfe

    def __init__(
        self, *args: Any, scale: float = 0.3, choose: Literal["layer", "model"] = "model", **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self.scale = scale
        self.choose = choose

    def configure_optimizers(self) -> Any:
        return None

    def training_step(self, stream: dict[str, Given], batch_idx: int) -> None:
        batches = [part for t, g in stream.items() for part in Batch.of(t, g).split(self.schedule.batch_size)]
        losses, gradients = layer_gradients(self, self.gradients, batches)
        cosines = self.method.cosines(gradients)
        if self.choose == "model":
            cosines = cosines.sum(dim=0, keepdim=True).expand_as(cosines)
        picked = one_hot(cosines.argmin(dim=1), cosines.shape[1]).to(cosines.dtype)
        values = self.method.merging.values.data
        vertex = picked[:, :-1] + picked[:, -1:] * self.method.first
        values += 0.1 * 2.0 / (self.step + 2.0) * self.scale * (vertex - values)
        self.finish_step(summed(losses))


class SoftSteps(Adaptation):
    """Iterations of `schedule.steps / iterations` rounds each: pick experts by labelled gradients, then learn by the
    objective on unlabeled images how far to go from the merged model to each of them.

    For each task in turn the expert is picked that was not picked before in this iteration and whose parameters point
    most against the gradient of that task's cross-entropy, on labelled images that no iteration before has used (as
    long as there are any).

    Args:
        iterations: of the outer loop.
        later_start: start value of the coefficients from the second iteration on.
        labeled_images: of each task, that an iteration looks at.
    """

    method: FrankWolfe

    def __init__(
        self,
        *args: Any,
        iterations: int = 10,
        later_start: float = 1.0e-8,
        labeled_images: int = 100,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.labeled_images = labeled_images
        self.rounds = max(1, self.schedule.steps // iterations)
        self.later_start = later_start

    def training_step(self, stream: dict[str, Given], batch_idx: int) -> None:
        iteration, within = divmod(self.step, self.rounds)
        if within == 0:
            self.pick(iteration)
        super().training_step(stream, batch_idx)

    @torch.no_grad()
    def pick(self, iteration: int) -> None:
        """Settle what was learned, then choose an expert per task, judged at the merged model as it then is."""
        method = self.method
        if iteration:
            method.settled.copy_(method.table())
            method.merging.values.fill_(self.later_start)
            self.optimizers().state.clear()  # type: ignore[union-attr]
        method.picked.zero_()
        labeled = Gradients(method, CrossEntropy(), self.schedule)
        chosen: list[int] = []
        # At first the merged model is the base: nothing is picked, and nothing settled.
        for batch in self._labeled(iteration)[: len(method.pool.names)]:
            parts = list(batch.split(self.schedule.batch_size))
            with torch.enable_grad():
                _, gradients = layer_gradients(self, labeled, parts)
            cosines = method.cosines(gradients)[:, :-1].sum(dim=0)
            cosines[chosen] = float("inf")
            chosen.append(int(cosines.argmin()))
        method.picked[chosen] = 1.0

    def _labeled(self, iteration: int) -> list[Batch]:
        if not self.labeled:
            raise RunError(
                "FW-Merging (soft) needs labelled images to pick experts; give method.labels=1000."
            )
        batches = []
        for task, given in self.labeled.items():
            total = len(given["images"])
            count = min(self.labeled_images, total)
            rows = torch.arange(iteration * count, (iteration + 1) * count) % total
            target = tuple(x[rows].to(self.device) for x in given["target"])
            batches.append(Batch(task, given["images"][rows].to(self.device), target=target))
        return batches


def layer_gradients(
    module: Adaptation, gradients: Gradients, batches: Sequence[Batch]
) -> tuple[Losses, dict[str, Tensor]]:
    """The losses of the batches, and by key the gradient dL/dtheta of the tasks' mean loss, every task and each of its
    images counting alike. Does not touch the trained parts' gradient, and is computed in full precision: a few images
    decide which expert is taken."""
    method = module.method
    totals = Counter[str]()
    for batch in batches:
        totals[batch.task] += len(batch)
    losses: Losses = []
    with only(method, []), torch.autocast(module.device.type, enabled=False), method.round() as merged:
        for leaf in merged.leaves.values():
            leaf.requires_grad_(True)
        for batch in batches:
            share = len(batch) / totals[batch.task] / len(totals)
            losses += gradients.inside([batch], lambda loss, share=share: (share * loss).backward())  # type: ignore[misc]
        found = {key: leaf.grad for key, leaf in merged.leaves.items() if leaf.grad is not None}
    module.check_finite(losses)
    if not all(bool(gradient.isfinite().all()) for gradient in found.values()):
        raise RunError(f"The gradient of the labelled images is not finite at step {module.step}.")
    return losses, found
