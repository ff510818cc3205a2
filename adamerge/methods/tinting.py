"""Model Tinting and SyMerge: one task-specific layer, trained together with the merging coefficients (2412.19098)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from adamerge.errors import PoolError
from adamerge.merging import ONE, Head, Pool, learned
from adamerge.methods.with_coefficients import MakeCoefficients, WithCoefficients
from adamerge.objectives.agreement import PseudoLabels
from adamerge.objectives.objective import Objective

HEAD = "head"
_LAYERWISE = partial(learned, start=0.3)


class Tinting(WithCoefficients):
    """A tinted layer is a per-task replacement of one existing layer, not an extra adapter.

    Args:
        pool: after any rule that keeps one encoder.
        layer: "head" tints the classifier, weight and bias, as the released code does; a head without a bias gets
            one that starts at 0. Any other name tints the
            encoder's tensors at or below it, e.g. "visual.proj" or "visual.transformer.resblocks.11.mlp": each task
            then has its own copy of them, which starts at the merged model's.
        head_start: "zero_shot" for the pool's head, or "xavier" for random weights over no bias (the paper's
            ablation).
        coefficients: merging coefficients that are learned jointly with the layer; None leaves the rule's at rest.

    Raises:
        PoolError: no such layer, or a rule that keeps one encoder per task.
    """

    def __init__(
        self,
        pool: Pool,
        layer: str = HEAD,
        head_start: Literal["zero_shot", "xavier"] = "zero_shot",
        coefficients: MakeCoefficients | None = _LAYERWISE,
    ) -> None:
        if pool.by_task:
            raise PoolError(
                "Tinting tints one merged encoder's layer, but this rule keeps one encoder per task."
            )
        super().__init__(pool, coefficients)
        self.tinted_keys = () if layer == HEAD else _keys_of(layer, pool)
        merged = {} if layer == HEAD else self.merge_by_coefficients()
        self.tinted = nn.ModuleList(
            nn.ParameterList(nn.Parameter(merged[key].detach().clone()) for key in self.tinted_keys)
            for _ in pool.tasks
        )
        heads = [_start(pool.heads[task], head_start) for task in pool.tasks] if layer == HEAD else []
        self.weights = nn.ParameterList(nn.Parameter(weight) for weight, _ in heads)
        self.biases = nn.ParameterList(nn.Parameter(bias) for _, bias in heads)

    @property
    def by_task(self) -> bool:
        return bool(self.tinted_keys)

    @property
    def one_encoder(self) -> bool:
        return not self.tinted_keys

    @property
    def frozen_encoder(self) -> bool:
        return not self.tinted_keys and super().frozen_encoder

    @property
    def objective(self) -> Objective:
        return PseudoLabels()

    def merge(self, task: str | None = None) -> dict[str, Tensor]:
        shared = self.merge_by_coefficients()
        if not self.tinted_keys:
            return shared
        own: nn.ParameterList = self.tinted[self.task_index(task)]  # type: ignore[assignment]
        return {**shared, **dict(zip(self.tinted_keys, own, strict=True))}

    def kept(self) -> Pool | None:
        if not self.tinted_keys:
            return super().kept()
        # An encoder per task: the tinted tensors are its task vectors from zero on.
        base = {
            key: value.detach() for key, value in {**self.pool.base, **self.merge_by_coefficients()}.items()
        }
        base |= {key: torch.zeros_like(base[key]) for key in self.tinted_keys}
        own = {
            key: torch.stack([layer[i].detach().flatten() for layer in self.tinted])  # type: ignore[index]
            for i, key in enumerate(self.tinted_keys)
        }
        return replace(
            self.pool,
            base=base,
            vectors=own,
            names=self.pool.tasks,
            coefficients=ONE,
            by_task=True,
            finished=True,
        )

    def head(self, task: str) -> Head:
        if self.tinted_keys or task in self.pool.unseen:
            return super().head(task)
        index = self.task_index(task)
        return replace(self.pool.heads[task], weight=self.weights[index], bias=self.biases[index])


def _start(head: Head, start: str) -> tuple[Tensor, Tensor]:
    """Weight and bias that a tinted head starts from."""
    weight, none = head.weight.detach().clone(), torch.zeros_like(head.weight[:, 0])
    if start == "xavier":
        return nn.init.xavier_uniform_(weight), none
    return weight, none if head.bias is None else head.bias.detach().clone()


def _keys_of(layer: str, pool: Pool) -> tuple[str, ...]:
    keys = tuple(key for key in pool.keys if key == layer or key.startswith(f"{layer}."))
    if keys:
        return keys
    stems = sorted({key.rpartition(".")[0] for key in pool.keys} - {""})
    raise PoolError(
        f"layer: the encoder has no tensor at or below '{layer}'.\n"
        f"  Give 'head', a tensor's name, or one of {', '.join(stems[:6])}, ..."
    )
