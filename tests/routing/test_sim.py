"""SiM restated in numpy, on features made to be told apart, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TASKS
from restating import forward, images64, pool64
from torch import Tensor, nn

from adamerge.errors import PoolError
from adamerge.merging import Head, Pool
from adamerge.routing.sim import SiM, subspace, subspaces

CPU = torch.device("cpu")


def sim_of(pool: Pool, images: Any) -> SiM:
    return SiM(pool.tasks, pool.encoder, pool.base, **subspaces(pool, images, device=CPU))


def by_hand(few: dict[str, Tensor], features: Tensor) -> list[int]:
    """The number of the nearest task for each of the features (n, d), image by image."""

    def unit(rows: Tensor) -> Any:
        return np.stack([row / np.sqrt((row**2).sum()) for row in rows.numpy()])

    kept = []
    for own in few.values():
        x = unit(own)
        mean = x.sum(axis=0) / len(x)
        # The leading eigenvectors of the scatter: another way to the right singular vectors.
        values, vectors = np.linalg.eigh((x - mean).T @ (x - mean))
        kept.append((mean, vectors[:, np.argsort(-values)][:, : max(1, round(0.1 * x.shape[1]))]))
    found = []
    for x in unit(features):
        lengths = []
        for mean, basis in kept:
            rest = x - mean
            for direction in basis.T:
                rest = rest - (rest @ direction) * direction
            lengths.append(np.sqrt((rest**2).sum()))
        found.append(int(np.argmin(lengths)))
    return found


@pytest.mark.parametrize("count", [2, 7])
def test_it_is_its_formula_on_the_pre_trained_features(count: int) -> None:
    pool, few, many = pool64(), images64(count), torch.cat(list(images64(40, seed=5).values()))
    features = {task: forward(pool.base, images)[1] for task, images in few.items()}
    expected = by_hand(features, forward(pool.base, many)[1])
    found = sim_of(pool, few)(many)
    assert found.dtype == torch.bool
    assert found.sum(dim=1).eq(1).all()
    assert found.int().argmax(dim=1).tolist() == expected
    assert len(set(expected)) > 1


def test_a_subspace_is_a_tenth_of_the_feature_or_as_many_as_the_images_span() -> None:
    features = torch.randn(40, 64, dtype=torch.float64)
    mean, basis = subspace(features)
    assert basis.shape == (6, 64)
    torch.testing.assert_close(mean, features.mean(dim=0))
    torch.testing.assert_close(basis @ basis.T, torch.eye(6, dtype=torch.float64))
    _, few = subspace(features[:4])
    assert few.shape == (4, 64)
    # Four images about their mean span three directions; the fourth, which is none of theirs, is nothing.
    torch.testing.assert_close(few @ few.T, torch.diag(torch.tensor([1.0, 1, 1, 0], dtype=torch.float64)))
    _, one = subspace(features[:1])
    assert not one.any()


class Flat(nn.Module):
    """An encoder whose feature is the picture itself."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(size))

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) * self.gain


def planes(count: int, seed: int) -> dict[str, Tensor]:
    """Images (count, 3, 2, 5) near a plane of its own for each task, all about the same point: means tell nothing."""
    random = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(30, 7, generator=torch.Generator().manual_seed(0)))[0].T
    found = {}
    for i, task in enumerate(TASKS):
        along = 2 * torch.rand(count, 2, generator=random) - 1
        noise = 0.01 * torch.randn(count, 30, generator=random)
        found[task] = (4 * axes[6] + along @ axes[2 * i : 2 * i + 2] + noise).view(count, 3, 2, 5)
    return found


def test_images_near_planes_of_their_own_find_their_task() -> None:
    heads = {task: Head(torch.zeros(2, 30)) for task in TASKS}
    pool = Pool(Flat(30).to("meta"), {"gain": torch.ones(30)}, {}, (), heads)
    router = sim_of(pool, planes(32, seed=1))
    for i, images in enumerate(planes(200, seed=2).values()):
        assert router(images)[:, i].double().mean() > 0.95
        assert router(3 * images).equal(router(images))  # the length of a feature tells nothing


def test_tasks_of_unlike_numbers_of_images_stand_beside_each_other() -> None:
    pool = replace(pool64(), heads={t: Head(torch.zeros(2, 4)) for t in TASKS})
    pictures = images64(9)
    few = {task: own[: 9 - 4 * i] for i, (task, own) in enumerate(pictures.items())}
    found = subspaces(pool, few, device=CPU, batch_size=2)
    for i, task in enumerate(TASKS):
        mean, basis = subspace(nn.functional.normalize(forward(pool.base, few[task])[1], dim=-1))
        torch.testing.assert_close(found["means"][i], mean)
        torch.testing.assert_close(found["bases"][i, : len(basis)].abs(), basis.abs())
        assert not found["bases"][i, len(basis) :].any()


def test_a_task_without_images_is_named() -> None:
    pool, images = pool64(), images64(3)
    for few in (
        {"signs": images["signs"], "scenes": images["scenes"]},
        {**images, "digits": images["digits"][:0]},
    ):
        with pytest.raises(
            PoolError, match=r"unlabeled images of every task; digits has none\.\n  Give them"
        ):
            subspaces(pool, few, device=CPU)
