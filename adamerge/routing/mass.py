"""MASS' router: the tasks in whose task vector's singular subspace the image's token lies (arXiv 2504.05342)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from adamerge.architecture import Names
from adamerge.errors import PoolError
from adamerge.merging import Pool
from adamerge.merging.compact import as_vectors, forms_of
from adamerge.merging.precision import wide
from adamerge.merging.spectra import triplets
from adamerge.models.blocks import mlp_keys, mlps
from adamerge.routing.subspaces import residuals
from adamerge.rules.tsv_m import TsvM

THRESHOLD, MOST = 0.2, 3
_BLOCKS = {12: 9, 24: 20}  # the authors' choice by the number of blocks
_STATE, _BASES = "state/", "bases"


@dataclass(frozen=True, eq=False)
class Mass:
    """The tasks with the smallest || x - V_t^T V_t x ||: above `THRESHOLD` in a softmax of the standardised negative
    residuals, at most `MOST` of them, and always the first.

    x is the class token that enters an MLP of TSV-M's merge; the rows of V_t are the r / T leading right singular
    vectors of task t's vector at that MLP's first weight. It needs no images. The authors (crisostomi/mass) then
    merge the chosen experts anew for each image. Here the method that is asked classifies with its parts for each
    chosen task, and as there the head with the largest logit decides.

    Attributes:
        encoder: without storage; `state` are the tensors of the merge that is looked into.
        bases: (T, r, width).
        block: whose MLP.
    """

    tasks: tuple[str, ...]
    encoder: nn.Module
    state: Mapping[str, Tensor]
    bases: Tensor
    block: int

    def __call__(self, images: Tensor) -> Tensor:
        return candidates(residuals(_entering(self.encoder, self.state, self.block, images), self.bases))

    def map(self, fn: Callable[[Tensor], Tensor]) -> Mass:
        return replace(
            self, state={key: fn(value) for key, value in self.state.items()}, bases=fn(self.bases)
        )

    @classmethod
    def of(cls, pool: Pool, prepared: Mapping[str, Tensor]) -> Mass:
        """From what `prepare` found of the same pool."""
        state = {key.removeprefix(_STATE): value for key, value in prepared.items() if key.startswith(_STATE)}
        return cls(pool.tasks, pool.encoder, {**pool.base, **state}, prepared[_BASES], block_of(pool))


def candidates(distances: Tensor) -> Tensor:
    """(n, T) booleans from residuals (n, T)."""
    if distances.shape[1] == 1:
        return torch.ones_like(distances, dtype=torch.bool)
    spread = distances.std(dim=1, keepdim=True) + 1e-6
    shares = ((distances.mean(dim=1, keepdim=True) - distances) / spread).softmax(dim=1)
    place = distances.argsort(dim=1, stable=True).argsort(dim=1)  # 0 of the nearest
    return (place == 0) | ((shares > THRESHOLD) & (place < MOST))


def block_of(pool: Pool) -> int:
    """The number of the block whose MLP is looked at: the authors' for 12 and 24 blocks, else three quarters deep."""
    depth = len(mlp_keys(pool.encoder))
    return _BLOCKS.get(depth, 3 * depth // 4)


@torch.no_grad()
def prepare(pool: Pool) -> dict[str, Tensor]:
    """What MASS keeps: "bases" (T, r, width), and the tensors of TSV-M's merge before the MLP that is looked at.

    Args:
        pool: the experts, before any rule.

    Raises:
        PoolError: no task vector of each task, or an encoder without blocks or class token.
    """
    _refuse_unsuited(pool)
    names, block = pool.backbone.names, block_of(pool)
    key = mlp_keys(pool.encoder)[block]["fc_weight"]
    if key not in pool.vectors:
        raise PoolError(f"MASS compares what the experts changed in {key}, and none changed it.")
    stack = wide(pool.vectors[key]).view(-1, *pool.base[key].shape)
    count = max(1, min(stack.shape[1:]) // len(stack))
    own = [pool.names.index(task) for task in pool.tasks]
    bases = torch.stack([triplets(stack[i], count).present().right for i in own])
    before = {k: form for k, form in forms_of(pool.vectors).items() if _is_before(names, k, block)}
    merged = TsvM()(replace(pool, vectors=as_vectors(before))).static()
    return {_BASES: bases, **{_STATE + k: merged[k] for k in before}}


def _refuse_unsuited(pool: Pool) -> None:
    if missing := [task for task in pool.tasks if task not in pool.names or pool.finished]:
        raise PoolError(
            f"MASS routes by the experts' task vectors, and this pool keeps none of {', '.join(missing)} (a rule has "
            "merged them, or the experts are not here).\n"
            "  Give the pool before any rule, or route by joint, which needs the model alone."
        )
    if pool.by_task:
        raise PoolError("MASS routes by the experts' own task vectors.\n  Give the pool before any rule.")
    if pool.backbone.names.class_token not in pool.base:
        raise PoolError("MASS looks at the class token, which this encoder does not have.\n  Route by joint.")


def _is_before(names: Names, key: str, block: int) -> bool:
    """Whether a tensor is passed before the MLP of a block."""
    where = names.block_of(key)
    if where is None:
        return not names.is_output(key)
    return where < block or (where == block and not names.within(key).startswith(f"{names.mlp}."))


def _entering(encoder: nn.Module, state: Mapping[str, Tensor], block: int, images: Tensor) -> Tensor:
    """(n, width) the class token that enters the MLP of a block."""
    seen: list[Tensor] = []

    def look(_module: nn.Module, inputs: Any) -> None:
        seen.append(inputs[0][:, 0])

    hook = mlps(encoder)[block].register_forward_pre_hook(look)
    try:
        functional_call(encoder, dict(state), (images,))
    finally:
        hook.remove()
    return wide(seen[0])
