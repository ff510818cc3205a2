"""WEMoE: the experts' MLPs as a mixture whose weights a router chooses per image (ICML 2024, arXiv 2402.00433)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from adamerge.errors import PoolError
from adamerge.merging import ONE, Pool
from adamerge.merging.compact import as_vectors, forms_of, opened
from adamerge.merging.mixing import cheaper, cost, mixed_linear
from adamerge.merging.quantised import Quantised
from adamerge.methods.base import Method
from adamerge.models.blocks import activation, mlp_keys, replaced_mlps


class Router(nn.Module):
    """Gates (n, T) from the tokens (n, tokens, width) that enter an MLP, averaged over the tokens of an image.

    Args:
        layers: 2 (a hidden layer as wide as the tokens), 1, or 0: a learned vector, whatever the input.
        start: start value of the gates; the weights start so small that the first mixture is close to it.
    """

    def __init__(self, width: int, tasks: int, layers: Literal[0, 1, 2], start: float) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.full((tasks,), start)) if layers == 0 else None
        self.fc1 = _small_linear(width, width, 0.0) if layers == 2 else None
        self.fc2 = _small_linear(width, tasks, start) if layers else None

    def forward(self, tokens: Tensor) -> Tensor:
        if self.fc2 is None:
            assert self.gate is not None
            return self.gate.expand(len(tokens), -1)
        hidden = tokens if self.fc1 is None else torch.relu(self.fc1(tokens))
        return self.fc2(hidden).mean(dim=1)  # type: ignore[no-any-return]


def _small_linear(inputs: int, outputs: int, bias: float) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.constant_(layer.bias, bias)
    return layer


@contextmanager
def gates_seen(method: nn.Module) -> Iterator[list[Tensor]]:
    """The gates (n, T) of every pass through a router inside the block; none of a method without routers."""
    seen: list[Tensor] = []

    def see(router: nn.Module, tokens: Any, gates: Tensor) -> None:
        seen.append(gates.detach().cpu())

    hooks = [part.register_forward_hook(see) for part in method.modules() if isinstance(part, Router)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


class WEMoE(Method):
    """Weight-ensembling mixture of experts.

    Everything but the MLPs is merged statically by the rule. The MLP of each block becomes
    theta_0 + sum_k r_k(x) tau_k with gates r(x) from a router; neither softmax nor clamp.

    Args:
        pool: after any rule that keeps one encoder and whose coefficient is one number.
        router_layers: 0, 1 or 2.
        batch_reduce: while adapting, the gates are averaged over the batch, so that one MLP serves it (FusionBench);
            predictions are made image by image all the same.
        shared_router: one router for all blocks (E-WEMoE, arXiv 2410.21804).
        prune: share of each MLP task vector's entries, the smallest, that are set to zero (E-WEMoE: 0.9).
        start: start value of the gates; None takes the rule's coefficient.

    Raises:
        PoolError: a rule without a single coefficient; entries to rank of task vectors that are kept in few bits.
    """

    def __init__(
        self,
        pool: Pool,
        router_layers: Literal[0, 1, 2] = 2,
        batch_reduce: bool = False,
        shared_router: bool = False,
        prune: float = 0.0,
        start: float | None = 0.3,
    ) -> None:
        if pool.by_task or not pool.coefficients.is_one_number:
            raise PoolError(
                "WEMoE merges everything but the MLPs with one coefficient, which this rule or start does not give."
                "\n  Choose rule=none, task_arithmetic, ties or weight_average."
            )
        mlps = mlp_keys(pool.encoder)
        keys = {key for mlp in mlps for key in mlp.values()}
        forms = {k: opened(form) for k, form in forms_of(pool.vectors).items()}
        if prune:
            forms |= {k: _pruned(k, stack, prune) for k, stack in forms.items() if k in keys}
        super().__init__(replace(pool, vectors=as_vectors(forms)))
        self._mlps = mlps
        count = 1 if shared_router else len(self._mlps)
        value = pool.coefficients.number if start is None else start
        self.routers = nn.ModuleList(
            Router(pool.backbone.width, len(pool.names), router_layers, value) for _ in range(count)
        )
        self.batch_reduce = batch_reduce
        self._static: dict[str, Tensor] | None = None
        self.eval()

    @property
    def one_encoder(self) -> bool:
        return False

    @property
    def independent_images(self) -> bool:
        return not (self.batch_reduce and self.training)

    def merge(self, task: str | None = None) -> dict[str, Tensor]:
        if self._static is None:
            keys = {key for mlp in self._mlps for key in mlp.values()}
            others = {k: form for k, form in forms_of(self.pool.vectors).items() if k not in keys}
            mlps = {key: self.pool.base[key] for key in self.pool.keys if key in keys}
            self._static = {**replace(self.pool, vectors=as_vectors(others)).static(), **mlps}
        return self._static

    def kept(self) -> Pool:
        keys = {key for mlp in self._mlps for key in mlp.values()}
        return replace(
            self.pool,
            base={**self.pool.base, **self.merge()},
            vectors=as_vectors(
                {key: form for key, form in forms_of(self.pool.vectors).items() if key in keys}
            ),
            coefficients=ONE,
            finished=True,
        )

    @classmethod
    def restore(cls, pool: Pool, state: Mapping[str, Tensor], **options: Any) -> Method:
        return cls.with_state(pool, state, **{**options, "prune": 0.0})  # its vectors are pruned already

    def forward_encoder(self, images: Tensor, task: str | None) -> Tensor:
        with replaced_mlps(self.pool.encoder, self.mixture):
            return super().forward_encoder(images, task)

    def mixture(self, index: int, tokens: Tensor) -> Tensor:
        """The MLP of block `index` on tokens (n, tokens, width)."""
        gates = self.routers[index % len(self.routers)](tokens)
        if not self.independent_images:
            gates = gates.mean(dim=0, keepdim=True)
        keys = self._mlps[index]
        hidden = activation(self.pool.encoder, index)(
            self._mixed(tokens, gates, keys["fc_weight"], keys["fc_bias"])
        )
        return self._mixed(hidden, gates, keys["proj_weight"], keys["proj_bias"])

    def _mixed(self, x: Tensor, gates: Tensor, weight: str, bias: str) -> Tensor:
        base = self.pool.base
        return mixed_linear(x, gates, base[weight], base[bias], self._vectors(weight), self._vectors(bias))

    def _vectors(self, key: str) -> Tensor | Quantised:
        if key in self.pool.vectors:
            return opened(forms_of(self.pool.vectors)[key])
        return self.pool.base[key].new_zeros(len(self.pool.names), self.pool.base[key].numel())

    def notes(self, images: int) -> str:
        tokens = self.pool.backbone.tokens
        outputs, inputs = self.pool.base[self._mlps[0]["fc_weight"]].shape
        shape = (images, tokens, 1 if self.batch_reduce else images, len(self.pool.names), inputs, outputs)
        chosen = cheaper(*shape)
        work = {mode: cost(mode, *shape) for mode in ("weights", "outputs")}
        told = ", ".join(
            f"{mode} {c.operations / 1e9:.2f} GFLOP and {c.bytes / 2**20:.0f} MiB" for mode, c in work.items()
        )
        return f"WEMoE mixes the {chosen} for {images} images x {tokens} tokens (a layer: {told})."

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self._static = None
        return super()._apply(fn, recurse)


def _pruned(key: str, stack: Tensor | Quantised, share: float) -> Tensor:
    """The task vectors (T, numel) of one tensor without the `share` smallest entries of each.

    Raises:
        PoolError: codes, of which too many share a magnitude to be ranked.
    """
    if isinstance(stack, Quantised):
        raise PoolError(
            f"prune={share:g} ranks the entries of {key}, but task vectors of {stack.bits} bits have only "
            f"{2**stack.bits} values each.\n  Give checkpoints.dtype=float32 or bfloat16, or prune=0."
        )
    magnitudes = stack.abs().float()
    dropped = int(share * stack.shape[1])
    if dropped < 1:
        return stack
    cut = magnitudes.kthvalue(dropped, dim=1, keepdim=True).values
    return torch.where(magnitudes > cut, stack, 0.0)
