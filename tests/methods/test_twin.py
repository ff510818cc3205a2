"""Twin-Merging, restated (float64, 1e-9)."""

from __future__ import annotations

import pytest
import torch
from conftest import TASKS
from restating import ADAM, adapt, arithmetic, close, expert, forward, images64, pool64, seeded
from torch import Tensor
from torch.nn.functional import cross_entropy

from adamerge.methods import Twin
from adamerge.objectives.routing import TaskIdentity
from adamerge.rules.linear import TaskArithmetic
from adamerge.training import Schedule

RULED = TaskArithmetic()
pytestmark = pytest.mark.usefixtures("double_precision")


@pytest.mark.parametrize("biases", ["merged", "own"])
def test_twin(biases: str) -> None:
    pool, images = pool64(), images64()
    options = {"rank_share": 0.5, "hidden": 6, "dropout": 0.0, "biases": biases}
    method = seeded(lambda: Twin(RULED(pool), **options))
    adapt(method, TaskIdentity(), images, Schedule(2, batch_size=4))

    router = seeded(lambda: Twin(RULED(pool), **options)).router
    optimizer = ADAM(router.parameters())
    apart = {key for key in pool.keys if biases == "own" and "bias" in key}
    shared = {key: pool.base[key] if key in apart else value for key, value in arithmetic(pool).items()}
    for _ in range(2):
        optimizer.zero_grad()
        for k, task in enumerate(TASKS):
            cross_entropy(router(forward(shared, images[task])[1]), torch.full((4,), k)).backward()
        optimizer.step()
    for own, restated in zip(method.router.parameters(), router.parameters(), strict=True):
        close(own, restated)

    def compressed(key: str, task: str) -> Tensor:
        e = expert(pool, task)[key] - shared[key]
        if e.ndim != 2:
            return e
        u, s, v = torch.linalg.svd(e, full_matrices=False)
        kept = max(1, int(0.5 * len(s)))
        return u[:, :kept] @ s[:kept].diag() @ v[:kept]

    assert bool(apart) == (biases == "own")
    sample = images["digits"][:2]
    weights = router(forward(shared, sample)[1]).softmax(-1)
    for task in TASKS:
        for n in range(2):
            theta = {
                k: expert(pool, task)[k]
                if k in apart
                else shared[k] + sum(weights[n, j] * compressed(k, t) for j, t in enumerate(TASKS))
                for k in pool.keys
            }
            close(method.features(sample, task)[n], forward(theta, sample[n : n + 1])[1][0])


def test_twin_with_one_expert_and_full_rank_is_that_expert() -> None:
    pool = pool64()
    method = Twin(TaskArithmetic()(pool), rank_share=1.0).eval()
    method.route = lambda features: torch.tensor([-1e9, 0.0, -1e9]).expand(len(features), -1)
    images = images64()["signs"]
    torch.testing.assert_close(method.features(images, "signs"), forward(expert(pool, "digits"), images)[1])
