"""FW-Merging: Frank-Wolfe steps towards the experts that a gradient asks for (ICCV 2025, arXiv 2503.12649)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from adamerge.merging import Pool, merge_tensor
from adamerge.methods.adamerging import AdaMerging


class FrankWolfe(AdaMerging):
    """A merged model that is a combination of experts, some of which may have nothing to do with the tasks.

    Every iterate is the base plus a layer-wise combination of task vectors, so it is kept as coefficients:
    settled + picked * lambda. The soft variant learns lambda (rows, T), the hard one moves it to the vertices.

    Args:
        pool: after any rule that keeps one encoder; experts beyond the tasks are candidates like the others.
        start: start value of the coefficients.
    """

    def __init__(self, pool: Pool, start: float | Tensor | None = 0.3) -> None:
        super().__init__(pool, "layer", start, clamp=False)
        self.settled: Tensor
        self.picked: Tensor
        self.first: Tensor
        self.register_buffer("settled", torch.zeros_like(self.merging.values))
        self.register_buffer("picked", torch.ones(len(pool.names)))
        self.register_buffer("first", self.merging.values.detach().clone(), persistent=False)

    def table(self) -> Tensor:
        return self.settled + self.picked * self.merging()

    @torch.no_grad()
    def cosines(self, gradients: Mapping[str, Tensor]) -> Tensor:
        """The cosine (rows, T + 1) of a gradient with each expert's parameters, layer by layer.

        The last column is the merged model that the iterations started from.
        """
        rows = []
        for layer in self.layers:
            base, vectors = self.pool.base[layer.key], self.pool.vectors[layer.key]
            start = merge_tensor(self.first[layer.rows], base, vectors).reshape(1, -1)
            candidates = torch.cat([base.reshape(1, -1) + vectors.to(base.dtype), start])
            rows.append(cosine_similarity(candidates, gradients[layer.key].reshape(1, -1), dim=1))
        return torch.stack(rows)
