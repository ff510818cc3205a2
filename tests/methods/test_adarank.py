"""AdaRank restated in float64 through autograd, its identities, and the gradient of its merge."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from conftest import TASKS
from restating import adapt, arithmetic, close, entropy_of, images64, pool64, tau
from torch import Tensor

from adamerge.errors import PoolError
from adamerge.merging import Pool
from adamerge.merging.singular import decomposed, merge_triplets
from adamerge.methods import AdaRank
from adamerge.objectives.entropy import Entropy
from adamerge.rounds.schedule import Schedule
from adamerge.rules.linear import Individual

pytestmark = pytest.mark.usefixtures("double_precision")
State = dict[str, Tensor]


def is_masked(key: str) -> bool:
    return ("attn" in key or "mlp" in key) and "ln" not in key and "bias" not in key


def merged(pool: Pool, table: Tensor, masks: dict[str, list[Tensor]]) -> State:
    """The equation, with a mask (rank,) for each matrix and task."""
    theta = dict(pool.base)
    for row, key in enumerate(pool.keys):
        for column, task in enumerate(pool.names):
            change = tau(pool, task)[key]
            if is_masked(key):
                u, s, v = torch.linalg.svd(change, full_matrices=False)
                change = u @ torch.diag(masks[key][column] * s) @ v
            theta[key] = theta[key] + table[row, column] * change
    return theta


def start_of(pool: Pool, ratio: float) -> dict[str, list[Tensor]]:
    found = {}
    for key in filter(is_masked, pool.keys):
        rank = min(pool.base[key].shape)
        m = torch.tensor([0.1 if i < int(ratio * rank) else -0.1 for i in range(rank)])
        found[key] = [m.clone().requires_grad_() for _ in pool.names]
    return found


@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_its_update_is_that_of_autograd_through_the_whole_equation(ratio: float) -> None:
    """Steps of 0.06, so that values change sides: what is in falls out, and what is out comes in."""
    pool, images = pool64(), images64()
    adam = partial(torch.optim.Adam, lr=0.06)
    table = torch.full((len(pool.keys), 3), 0.3, requires_grad=True)
    logits = start_of(pool, ratio)
    optimizer = adam([table, *(m for own in logits.values() for m in own)])
    for _ in range(4):
        soft = {key: [(m / 10).sigmoid() for m in own] for key, own in logits.items()}
        through = {key: [(s > 0.5).double() + (s - s.detach()) for s in own] for key, own in soft.items()}
        optimizer.zero_grad()
        entropy_of(pool, merged(pool, table, through), images).backward()
        optimizer.step()
    method = adapt(
        AdaRank(pool64(), ratio=ratio), Entropy(), images, Schedule(steps=4, batch_size=4), optimizer=adam
    )
    assert isinstance(method, AdaRank)
    close(method.merging.values, table)
    flipped = set()
    for key, parameter in zip(method.masked, method.logits_of_masks, strict=True):
        close(parameter[0], torch.stack(logits[key]))
        before = torch.stack(start_of(pool, ratio)[key]) > 0
        flipped |= set(before[(parameter[0] > 0) != before].tolist())
    assert flipped == ({True, False} if ratio < 1 else {True})
    hard = {key: [(m > 0).double() for m in own] for key, own in logits.items()}
    state = method.merged_state_dict()
    for key, value in merged(pool, table.detach(), hard).items():
        close(state[key], value)


def test_all_values_are_task_arithmetic_and_none_leaves_the_matrices() -> None:
    pool = pool64()
    found, none = (AdaRank(pool64(), ratio=ratio).merged_state_dict() for ratio in (1.0, 0.0))
    for key, value in arithmetic(pool).items():
        torch.testing.assert_close(found[key], value)
        torch.testing.assert_close(none[key], pool.base[key] if is_masked(key) else value)


@pytest.mark.parametrize("matrices", [1, 3])
def test_the_gradient_of_the_merge_is_that_of_finite_differences(matrices: int) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = decomposed([torch.randn(2, 4, 5, generator=generator) for _ in range(matrices)])
    base = torch.randn(4 * matrices, 5, generator=generator)
    weights = torch.randn(matrices, 2, 4, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: merge_triplets(w, base, vectors), (weights,))
    whole = merge_triplets(torch.ones(matrices, 2, 4), torch.zeros_like(base), vectors)
    torch.testing.assert_close(whole.view(1, -1), vectors.dense().sum(dim=0, keepdim=True))


def test_a_left_out_value_has_the_gradient_of_its_soft_mask() -> None:
    method = AdaRank(pool64(), ratio=0.5)
    key = method.masked[0]
    masks = method.masks(key)
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    masks.sum().backward()
    soft = (method.logits_of_masks[0].detach() / 10).sigmoid()
    close(method.logits_of_masks[0].grad, soft * (1 - soft) / 10)  # type: ignore[arg-type]


def test_apart_each_projection_has_values_of_its_own() -> None:
    method = AdaRank(pool64(), fused="apart")
    shapes = {tuple(parameter.shape) for parameter in method.logits_of_masks}
    assert shapes == {(3, 3, 8), (1, 3, 8)}
    for key, value in arithmetic(pool64()).items():
        torch.testing.assert_close(method.merged_state_dict()[key], value)
    assert len(method.coefficients()) == len(TASKS)


def test_what_it_cannot_start_from_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1, not 1.5"):
        AdaRank(pool64(), ratio=1.5)
    with pytest.raises(PoolError, match="one encoder per task"):
        AdaRank(Individual()(pool64()))
