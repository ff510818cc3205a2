"""Twin-Merging: a shared encoder, compressed exclusive knowledge of each expert, and a router (arXiv 2406.15479)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from adamerge.errors import PoolError
from adamerge.merging import ONE, Pool
from adamerge.merging.compact import Compact, LowRank, as_vectors, forms_of, mapped
from adamerge.merging.matrices import Fused, as_matrices, is_matrix
from adamerge.methods.base import Method
from adamerge.objectives.objective import Objective
from adamerge.objectives.routing import TaskIdentity

# Encoders merged for several images at once take at most this much memory.
_CHUNK_BYTES = 512 << 20


class Twin(Method):
    """theta(x) = shared + sum_k softmax(router(f(x)))_k e_k, one encoder per image.

    The shared encoder is the rule's merge; e_k is what the expert has beyond it, matrices cut to their leading
    singular triplets. The router sees the shared encoder's feature and is trained to tell the tasks apart, which
    needs to know of each image which task it comes from, but no labels. (The reference's router has a batch norm;
    batches of one task at a time make a layer norm necessary here.)

    Args:
        pool: after any rule that keeps one encoder.
        rank_share: share of the singular triplets of each matrix that are kept.
        fused: whether query, key and value projections are one matrix, "together", or three, "apart".
        hidden: width of the router's hidden layer.
        dropout: in the router, while training.
        biases: "merged" like everything else, or "own" as in the reference's code, which merges no biases: the router
            sees the base's, and a task is predicted with those of its expert, so that the task must be known.

    Raises:
        PoolError: the rule keeps one encoder per task.
    """

    def __init__(
        self,
        pool: Pool,
        rank_share: float = 0.1,
        hidden: int = 1536,
        dropout: float = 0.5,
        biases: Literal["merged", "own"] = "merged",
        fused: Fused = "together",
    ) -> None:
        if pool.by_task:
            raise PoolError("Twin-Merging starts from one merged encoder, but this rule keeps one per task.")
        own = [key for key in pool.keys if biases == "own" and "bias" in key]
        super().__init__(pool if pool.finished else _divided(pool, own, rank_share, fused))
        # What of each expert is kept. Images are predicted from its product, made once.
        self.exclusive = {k: form for k, form in forms_of(self.pool.vectors).items() if k not in own}
        # (T, *shape) of every expert, of the tensors that are not merged.
        self.biases = {key: self.pool.vectors[key].view(-1, *self.pool.base[key].shape) for key in own}
        self.pool = replace(self.pool, vectors=dict(Compact(self.exclusive)))
        self.router = nn.Sequential(
            nn.Linear(pool.backbone.embed_dim, hidden),
            nn.LayerNorm(hidden),
            nn.LeakyReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, len(pool.names)),
        )

    @property
    def one_encoder(self) -> bool:
        return False

    @property
    def frozen_encoder(self) -> bool:
        return True

    @property
    def objective(self) -> Objective:
        return TaskIdentity()

    def merge(self, task: str | None = None) -> dict[str, Tensor]:
        return {key: self.pool.base[key] for key in self.pool.keys}

    def route(self, features: Tensor) -> Tensor:
        """Logits (n, T) over the experts of the shared encoder's features (n, d)."""
        logits: Tensor = self.router(features)
        return logits

    def features(self, images: Tensor, task: str | None = None) -> Tensor:
        gates = self.route(self.encode(images, task)[-1]).softmax(dim=-1)
        size = sum(value.numel() * value.element_size() for value in self.pool.base.values())
        chunk = max(1, _CHUNK_BYTES // size)
        parts = zip(images.split(chunk), gates.split(chunk), strict=True)
        fixed = {**self.pool.fixed, **self.biases_of(task)}
        return torch.cat([self._of_each(part, gate, fixed) for part, gate in parts])

    def biases_of(self, task: str | None) -> dict[str, Tensor]:
        """What a task keeps of its own expert; nothing for a task without one, which has the base's."""
        if task not in self.pool.names:
            return {}
        return {key: stack[self.pool.names.index(task)] for key, stack in self.biases.items()}

    def kept(self) -> Pool:
        biases = {key: stack.flatten(1) for key, stack in self.biases.items()}
        vectors = as_vectors({**self.exclusive, **biases})
        return replace(self.pool, vectors=vectors, coefficients=ONE, finished=True)

    @classmethod
    def restore(cls, pool: Pool, state: Mapping[str, Tensor], **options: Any) -> Method:
        return cls.with_state(pool, state, **options)

    def _of_each(self, images: Tensor, gates: Tensor, fixed: dict[str, Tensor]) -> Tensor:
        """Features (n, d) of images (n, 3, H, W), each through the encoder of its own gates (n, T)."""
        base = self.pool.base
        own = {
            key: torch.addmm(base[key].reshape(1, -1), gates, stack.to(gates.dtype)).view(
                -1, *base[key].shape
            )
            for key, stack in self.pool.vectors.items()
        }

        def one(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
            features: Tensor = functional_call(
                self.pool.encoder, {**fixed, **parameters}, (image.unsqueeze(0),)
            )
            return features.squeeze(0)

        # The fused attention kernels have no batching rule.
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with sdpa_kernel(SDPBackend.MATH):
                features: Tensor = vmap(one)(own, images)
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
        return features

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self.biases = {key: fn(stack) for key, stack in self.biases.items()}
        self.exclusive = {key: mapped(form, fn) for key, form in self.exclusive.items()}
        return super()._apply(fn, recurse)


def _divided(pool: Pool, own: list[str], rank_share: float, fused: Fused) -> Pool:
    """The shared encoder, and what the experts have beyond it; of the tensors in `own`, which are not merged, the
    experts' own."""
    shared = pool.static() | {key: pool.base[key] for key in own}
    forms = {
        key: pool.base[key].reshape(1, -1) + pool.vectors[key].to(pool.base[key].dtype)
        if key in own
        else _exclusive(pool, key, shared[key], rank_share, fused)
        for key in pool.keys
    }
    return replace(pool, base=shared, vectors=as_vectors(forms))


def _exclusive(pool: Pool, key: str, shared: Tensor, rank_share: float, fused: Fused) -> Tensor | LowRank:
    """e_k (T, numel) of one tensor: expert minus shared, matrices as the factors of a share of their rank."""
    experts = pool.base[key].reshape(1, -1) + pool.vectors[key].to(pool.base[key].dtype)
    difference = experts - shared.reshape(1, -1)
    if not is_matrix(shared):
        return difference
    matrices = as_matrices(key, difference.view(-1, *shared.shape), fused)
    lefts, rights = zip(*(_leading(own, rank_share) for own in matrices), strict=True)
    factors = LowRank(torch.stack(lefts), torch.stack(rights))
    return factors if factors.nbytes < difference.nbytes else factors.dense()


def _leading(matrices: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """The factors (T, rows, rank) and (T, rank, columns) of a share of the singular triplets of matrices
    (T, rows, columns)."""
    u, s, v = torch.linalg.svd(matrices, full_matrices=False)
    kept = max(1, int(share * s.shape[1]))
    return u[:, :, :kept] * s[:, None, :kept], v[:, :kept]
