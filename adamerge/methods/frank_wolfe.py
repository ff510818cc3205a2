"""FW-Merging: Frank-Wolfe steps towards the experts that a gradient asks for (ICCV 2025, arXiv 2503.12649)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from adamerge.merging import Pool, merge_tensor
from adamerge.merging.layers import Layout
from adamerge.methods.adamerging import AdaMerging


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
