"""ESM restated in numpy on the outputs' displacements themselves, its identities, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from restating import DEPTH, State, expert, images64, pool64
from rules.test_tsv_m import tsv_m
from small_pools import close, taus, the_order_of_tasks_does_not_matter
from spectral_by_hand import Matrix
from statistics_by_hand import entering
from torch import Tensor

import adamerge
from adamerge.errors import PoolError
from adamerge.merging import Pool
from adamerge.rules.esm import Esm, essential

MOVED = ("attn.in_proj_weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
SCALED = (*MOVED, "attn.out_proj.weight")


def even(matrix: Matrix) -> Matrix:
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    found: Matrix = left @ right * values.mean()
    return found


def esm(deltas: list[Matrix], tokens: list[Matrix]) -> Matrix:
    """By the decomposition of what each expert adds to its outputs, token by token."""
    count = deltas[0].shape[0] // len(deltas)
    lefts, rights = [], []
    for delta, x in zip(deltas, tokens, strict=True):
        _, values, directions = np.linalg.svd(x @ delta.T)
        values = np.where(values > 1e-6 * values[0], values, 0.0)  # more outputs than inputs: some never move
        variances = values[:count] ** 2 / (len(x) - 1)
        q = (variances / variances.mean()) ** 0.15
        q = q / q.mean()
        moved = directions @ delta
        moved = moved * np.linalg.norm(moved) ** 2
        lefts.append(directions[:count].T * q)
        rights.append(moved[:count] * q[:, None])
    right = np.concatenate(rights) / np.mean([np.linalg.norm(delta) for delta in deltas]) ** 2
    columns = np.linalg.norm(right, axis=0)
    right = right * (columns / columns.mean()) ** 2
    found: Matrix = even(np.concatenate(lefts, axis=1)) @ even(right) * 2.0
    return found


def by_hand(pool: Pool, images: dict[str, Tensor], scale: float) -> State:
    seen = {task: entering(expert(pool, task), images[task]) for task in pool.names}
    change: dict[str, Matrix] = {}
    for key, vectors in taus(pool).items():
        deltas = [vector.numpy() for vector in vectors]
        if key.endswith(MOVED):
            change[key] = esm(deltas, [seen[task][key].numpy() for task in pool.names])
        elif deltas[0].ndim == 2:
            change[key] = tsv_m(deltas)
        else:
            change[key] = np.mean(deltas, axis=0)
    for kind in SCALED:
        keys = [key for key in change if key.endswith(kind)]
        assert len(keys) == DEPTH
        norms = [np.linalg.norm(change[key]) for key in keys]
        for key, norm in zip(keys, norms, strict=True):
            change[key] = change[key] * (norm / np.mean(norms)) ** 2
    return {key: base + scale * torch.from_numpy(change[key]) for key, base in pool.base.items()}


@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_it_is_its_equations(scale: float) -> None:
    pool, images = pool64(), images64(14)
    merged = adamerge.merge(pool, "esm", images=images, scale=scale)
    close(merged, by_hand(pool, images, scale))
    the_order_of_tasks_does_not_matter(pool, "esm", images=images)


def test_two_tasks_with_outputs_of_their_own_do_not_meet() -> None:
    """One direction each, alike in size and in what they read: 2 x (mean s(U)) (mean s(A)) with s(U) = 1, 1."""
    stack = torch.tensor([[[3.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 3.0]]]).double()
    found = essential(stack, torch.eye(2).double().expand(2, 2, 2))
    # A has the rows (3, 0) and (0, 3), columns of one norm: its polar factor is the identity, its mean 3.
    torch.testing.assert_close(found, torch.tensor([[6.0, 0.0], [0.0, 6.0]]).double())
    # Tokens that never show the first task's input leave it without a direction.
    deaf = torch.stack([torch.tensor([[0.0, 0.0], [0.0, 1.0]]), torch.eye(2)]).double()
    found = essential(stack, deaf)
    assert found[0].tolist() == [0.0, 0.0]
    assert found[1, 1] > 0.0


def test_directions_that_no_expert_changes_get_nothing() -> None:
    """Experts of low rank: the merge is in the span of their outputs and inputs."""
    generator = torch.Generator().manual_seed(0)
    up, down = torch.randn(2, 12, 1, generator=generator), torch.randn(2, 1, 9, generator=generator)
    tokens = torch.randn(2, 40, 9, generator=generator)
    found = essential((up @ down).double(), (tokens.mT @ tokens).double())
    assert torch.linalg.matrix_rank(found, rtol=1e-9) == 2
    outputs = torch.linalg.qr(torch.cat([up[0], up[1]], dim=1).double()).Q
    torch.testing.assert_close(outputs @ (outputs.t() @ found), found, rtol=1e-6, atol=1e-6)


def test_nothing_changed_stays_and_images_are_asked_for() -> None:
    assert not essential(torch.zeros(2, 4, 3), torch.eye(3).expand(2, 3, 3)).any()
    with pytest.raises(PoolError, match="learns from unlabeled images"):
        adamerge.merge(pool64(), Esm())
