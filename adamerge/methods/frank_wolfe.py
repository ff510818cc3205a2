"""FW-Merging: Frank-Wolfe steps towards the experts that a gradient asks for (ICCV 2025, arXiv 2503.12649)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, one_hot
from torch.optim import Optimizer

from adamerge.errors import RunError
from adamerge.merging import Pool, merge_tensor
from adamerge.merging.layers import Layout
from adamerge.methods.adamerging import AdaMerging
from adamerge.methods.gradients import Gradients, Losses
from adamerge.methods.loop import Loop, only
from adamerge.objectives.entropy import Entropy
from adamerge.objectives.labels import CrossEntropy
from adamerge.objectives.objective import Objective
from adamerge.rounds.batch import Batch


class FrankWolfe(AdaMerging):
    """A merged model that is a combination of experts, some of which may have nothing to do with the tasks.

    Each step goes from the iterate theta to picked experts, theta + sum_k lambda_k (theta_k - theta), so that the
    iterate is the base plus a layer-wise combination of task vectors. It is kept as coefficients: `settled` before the
    step, and settled (1 - sum_k lambda_k) + lambda after it, both of the picked experts only. The soft variant learns
    lambda (rows, T), the hard one moves it to the vertices.

    Args:
        pool: after any rule that keeps one encoder; experts beyond the tasks are candidates like the others.
        start: start value of the coefficients.
        layout: what a layer is, of the coefficients and of the cosines: "hf" has q, k and v apart.
    """

    def __init__(self, pool: Pool, start: float | Tensor | None = 0.3, layout: Layout = "open_clip") -> None:
        super().__init__(pool, "layer", start, clamp=False, layout=layout)
        self.settled: Tensor
        self.picked: Tensor
        self.first: Tensor
        self.register_buffer("settled", torch.zeros_like(self.merging.values))
        self.register_buffer("picked", torch.ones(len(pool.names)))
        self.register_buffer("first", self.merging.values.detach().clone(), persistent=False)

    @property
    def loop(self) -> type[Loop]:
        return HardSteps

    @property
    def objective(self) -> Objective:
        return CrossEntropy()

    def table(self) -> Tensor:
        step = self.picked * self.merging()
        return self.settled * (1.0 - step.sum(dim=1, keepdim=True)) + step

    @torch.no_grad()
    def cosines(self, gradients: Mapping[str, Tensor]) -> Tensor:
        """The cosine (rows, T + 1) of a gradient with each expert's parameters, layer by layer.

        The last column is the merged model that the iterations started from. A layer that cannot change the features
        (a key's bias, by itself) has the cosine 0: its gradient is rounding.
        """
        rows: list[Tensor] = []
        for layer in self.layers:
            base, vectors = self.pool.base[layer.key], self.pool.vectors[layer.key]
            start = merge_tensor(self.first[layer.rows], base, vectors).reshape(1, -1)
            candidates = torch.cat([base.reshape(1, -1) + vectors.to(base.dtype), start])
            parts = len(layer.names)
            wanted = gradients[layer.key].reshape(1, -1).chunk(parts, dim=1)
            for name, own, gradient in zip(layer.names, candidates.chunk(parts, dim=1), wanted, strict=True):
                dead = self.pool.backbone.names.is_key_bias(name)
                rows.append(cosine_similarity(own, torch.zeros_like(gradient) if dead else gradient, dim=1))
        return torch.stack(rows)


class SoftFrankWolfe(FrankWolfe):
    """The soft variant: labels choose the experts, unlabeled images how far to go to each of them."""

    @property
    def loop(self) -> type[Loop]:
        return SoftSteps

    @property
    def objective(self) -> Objective:
        return Entropy(1e-8)


class HardSteps(Loop):
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

    def make_optimizers(self) -> list[Optimizer]:
        return []

    def step(self, batches: Sequence[Batch], optimizers: Sequence[Any]) -> Losses:
        parts = [part for batch in batches for part in batch.split(self.schedule.batch_size)]
        losses, gradients = layer_gradients(self, self.gradients, parts)
        cosines = self.method.cosines(gradients)
        if self.choose == "model":
            cosines = cosines.sum(dim=0, keepdim=True).expand_as(cosines)
        picked = one_hot(cosines.argmin(dim=1), cosines.shape[1]).to(cosines.dtype)
        values = self.method.merging.values.data
        vertex = picked[:, :-1] + picked[:, -1:] * self.method.first
        values += 0.1 * 2.0 / (self.engine.step + 2.0) * self.scale * (vertex - values)
        return losses


class SoftSteps(Loop):
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

    def step(self, batches: Sequence[Batch], optimizers: Sequence[Any]) -> Losses:
        iteration, within = divmod(self.engine.step, self.rounds)
        if within == 0:
            self.pick(iteration, optimizers[0])
        return super().step(batches, optimizers)

    @torch.no_grad()
    def pick(self, iteration: int, optimizer: Any) -> None:
        """Settle what was learned, then choose an expert per task, judged at the merged model as it then is."""
        method = self.method
        if iteration:
            method.settled.copy_(method.table())
            method.merging.values.fill_(self.later_start)
            optimizer.state.clear()
        method.picked.zero_()
        labeled = Gradients(method, CrossEntropy(), self.schedule)
        chosen: list[int] = []
        # At first the merged model is the base: nothing is picked, and nothing settled.
        for batch in self._few(iteration)[: len(method.pool.names)]:
            parts = list(batch.split(self.schedule.batch_size))
            with torch.enable_grad():
                _, gradients = layer_gradients(self, labeled, parts)
            cosines = method.cosines(gradients)[:, :-1].sum(dim=0)
            cosines[chosen] = float("inf")
            chosen.append(int(cosines.argmin()))
        method.picked[chosen] = 1.0

    def _few(self, iteration: int) -> list[Batch]:
        if not self.labeled:
            raise RunError(
                "FW-Merging (soft) needs labelled images to pick experts; give method.labels=1000."
            )
        batches = []
        for task, given in self.labeled.items():
            total = len(given["images"])
            count = min(self.labeled_images, total)
            rows = torch.arange(iteration * count, (iteration + 1) * count) % total
            target = tuple(x[rows].to(self.engine.device) for x in given["target"])
            batches.append(Batch(task, given["images"][rows].to(self.engine.device), target=target))
        return batches


def layer_gradients(
    loop: Loop, gradients: Gradients, batches: Sequence[Batch]
) -> tuple[Losses, dict[str, Tensor]]:
    """The losses of the batches, and by key the gradient dL/dtheta of the tasks' mean loss, every task and each of its
    images counting alike. Does not touch the trained parts' gradient, and is computed in full precision: a few images
    decide which expert is taken."""
    method = loop.method
    totals = Counter[str]()
    for batch in batches:
        totals[batch.task] += len(batch)
    losses: Losses = []
    with (
        only(method, []),
        torch.autocast(loop.engine.device.type, enabled=False),
        method.merged_once() as merged,
    ):
        for leaf in merged.leaves.values():
            leaf.requires_grad_(True)
        for batch in batches:
            share = len(batch) / totals[batch.task] / len(totals)
            losses += gradients.inside([batch], lambda loss, share=share: (share * loss).backward())  # type: ignore[misc]
        found = {key: leaf.grad for key, leaf in merged.leaves.items() if leaf.grad is not None}
    loop.check_finite(losses, [])
    if not all(bool(gradient.isfinite().all()) for gradient in found.values()):
        raise RunError(f"The gradient of the labelled images is not finite at step {loop.engine.step}.")
    return losses, found
