"""WEMoE's routers, restated (float64, 1e-9), and its identities."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import TASKS
from restating import (
    ADAM,
    adapt,
    arithmetic,
    close,
    forward,
    images64,
    logits,
    mean_entropy,
    mlp,
    pool64,
    seeded,
    tau,
)
from torch import Tensor

from adamerge.errors import PoolError
from adamerge.merging.compact import as_vectors
from adamerge.merging.quantised import INT4, Quantised
from adamerge.methods import WEMoE
from adamerge.methods.wemoe import Router
from adamerge.objectives.entropy import Entropy
from adamerge.rules.linear import TaskArithmetic
from adamerge.training import Schedule

RULED = TaskArithmetic()
pytestmark = pytest.mark.usefixtures("double_precision")


@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize("reduce", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_wemoe(layers: Any, reduce: bool, shared: bool) -> None:
    restated(layers, reduce, shared, "none")


def restated(layers: Any, reduce: Any, shared: Any, decay: Any) -> None:
    pool, images = pool64(), images64()
    method = seeded(lambda: WEMoE(RULED(pool), layers, batch_reduce=reduce, shared_router=shared))
    state = {key: value.detach().clone().requires_grad_() for key, value in method.named_parameters()}
    adapt(
        method,
        Entropy(),
        images,
        Schedule(2, batch_size=2, batches_per_task=2, forward_images=100, decay=decay),
    )

    optimizer = ADAM(state.values())
    theta = arithmetic(pool)

    def gates(index: int, tokens: Tensor) -> Tensor:
        stem = f"routers.{0 if shared else index}"
        if layers == 0:
            return state[f"{stem}.gate"]
        if layers == 2:
            tokens = torch.relu(tokens @ state[f"{stem}.fc1.weight"].T + state[f"{stem}.fc1.bias"])
        return (tokens @ state[f"{stem}.fc2.weight"].T + state[f"{stem}.fc2.bias"]).mean(0)

    def mix(index: int, tokens: Tensor) -> Tensor:
        names = ("c_fc.weight", "c_fc.bias", "c_proj.weight", "c_proj.bias")
        keys = [f"visual.transformer.resblocks.{index}.mlp.{name}" for name in names]
        chosen = [gates(index, sample) for sample in tokens]
        if reduce:
            chosen = [torch.stack(chosen).mean(0)] * len(tokens)
        outputs = []
        for r, sample in zip(chosen, tokens, strict=True):
            own = [
                pool.base[key] + sum(r[k] * tau(pool, t)[key] for k, t in enumerate(TASKS)) for key in keys
            ]
            outputs.append(mlp(sample, *own))
        return torch.stack(outputs)

    for step in range(2):
        if decay == "cosine":
            optimizer.param_groups[0]["lr"] = 1e-2 * (1 + math.cos(math.pi * step / 2)) / 2
        optimizer.zero_grad()
        for task in TASKS:
            for batch in images[task].split(2):
                mean_entropy(logits(pool.heads[task].weight, forward(theta, batch, mix=mix)[1])).backward()
        optimizer.step()
    for key, own in method.named_parameters():
        close(own, state[key])


def test_cosine_decay_ends_at_zero() -> None:
    restated(2, False, False, "cosine")


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_a_router_starts_close_to_task_arithmetic(layers: Any) -> None:
    """Weights N(0, 0.01), biases 0, but the gates' at the coefficient."""
    torch.manual_seed(0)
    router = Router(64, 8, layers, 0.3)
    state = router.state_dict()
    if layers == 0:
        assert torch.equal(state["gate"], torch.full((8,), 0.3))
        return
    assert torch.equal(state["fc2.bias"], torch.full((8,), 0.3))
    assert 0.008 < state["fc2.weight"].std() < 0.012
    if layers == 2:
        assert torch.equal(state["fc1.bias"], torch.zeros(64))
        assert 0.0095 < state["fc1.weight"].std() < 0.0105


@pytest.mark.parametrize("shared", [False, True])
def test_wemoe_without_weights_in_the_gate_is_task_arithmetic(shared: bool) -> None:
    pool = pool64()
    method = WEMoE(TaskArithmetic()(pool), 2, shared_router=shared)
    for router in method.routers:
        torch.nn.init.zeros_(router.fc2.weight)
    images = images64()["digits"]
    with torch.no_grad():
        torch.testing.assert_close(method.features(images), forward(arithmetic(pool), images)[1])


def test_pruning_keeps_the_largest_entries_of_each_task_vector() -> None:
    pool = pool64()
    key = "visual.transformer.resblocks.0.mlp.c_fc.weight"
    kept = WEMoE(TaskArithmetic()(pool), prune=0.75).pool.vectors[key]
    assert (kept != 0).sum(dim=1).tolist() == [kept.shape[1] // 4] * len(TASKS)
    for row, original in zip(kept, pool.vectors[key], strict=True):
        assert row.abs()[row != 0].min() > original.abs()[row == 0].max()
    assert torch.equal(WEMoE(TaskArithmetic()(pool)).pool.vectors[key], pool.vectors[key])


def test_experts_in_few_bits_are_mixed_as_the_numbers_that_they_stand_for() -> None:
    pool, images = few_bits(), images64()
    dense = replace(pool, vectors=dict(pool.vectors))
    ours, theirs = seeded(lambda: WEMoE(RULED(pool))), seeded(lambda: WEMoE(RULED(dense)))
    for task, given in images.items():
        close(ours.logits(given, task), theirs.logits(given, task))


def test_entries_in_few_bits_are_not_pruned_by_their_rank() -> None:
    with pytest.raises(
        PoolError, match=r"prune=0\.5 ranks .* only 16 values .*\n.*checkpoints\.dtype=float32"
    ):
        WEMoE(RULED(few_bits()), prune=0.5)


def few_bits() -> Any:
    pool = pool64()
    return replace(pool, vectors=as_vectors({k: Quantised.of(v, INT4) for k, v in pool.vectors.items()}))
