"""ProbSurgery, restated (float64, 1e-9)."""

from __future__ import annotations

import pytest
import torch
from conftest import TASKS
from restating import ADAM, adapt, arithmetic, clones, close, expert, forward, images64, pool64, seeded
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from adamerge.methods import ProbSurgery
from adamerge.methods.prob_surgery import divergence
from adamerge.objectives.alignment import Alignment
from adamerge.rules.linear import TaskArithmetic
from adamerge.training import Schedule

RULED = TaskArithmetic()
pytestmark = pytest.mark.usefixtures("double_precision")


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_prob_surgery(beta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, images = pool64(), images64()
    method = seeded(lambda: ProbSurgery(RULED(pool), rank=2, beta=beta))
    start = clones(method.parameters())
    shape = (2, pool.backbone.embed_dim)
    draws = torch.randn(2 * len(TASKS) * 2, *shape).unbind()
    left, other = iter(draws), torch.randn_like
    monkeypatch.setattr(torch, "randn_like", lambda x: next(left) if x.shape == shape else other(x))
    adapt(method, Alignment(), images, Schedule(2, batch_size=2, batches_per_task=2, update="batch"))

    optimizer = ADAM(start)
    merged, again = arithmetic(pool), iter(draws)
    for _ in range(2):
        for k, task in enumerate(TASKS):
            down, mean, log_variance = start[3 * k : 3 * k + 3]
            for batch in images[task].split(2):
                feature, target = forward(merged, batch)[1], forward(expert(pool, task), batch)[1]
                hidden = torch.relu(feature @ down.T)
                normal = Normal(hidden @ mean.T, ((hidden @ log_variance.T) / 2).exp())
                drawn = normal.mean + next(again) * normal.stddev
                kl = kl_divergence(normal, Normal(0.0, 1.0)).sum(1).mean()
                optimizer.zero_grad()
                ((feature - drawn - target).abs().mean() + beta * kl).backward()
                optimizer.step()
    for own, restated in zip(method.parameters(), start, strict=True):
        close(own, restated)


def test_the_divergence_is_that_of_torch() -> None:
    mean, log_variance = torch.randn(2, 5, 3)
    own = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(divergence(mean, log_variance), own.sum(1).mean())


def test_it_draws_while_training_and_takes_the_mean_after_it() -> None:
    method = seeded(lambda: ProbSurgery(RULED(pool64()), rank=2)).eval()
    encoded: tuple[Tensor, ...] = (torch.randn(4, method.pool.backbone.embed_dim),)
    torch.testing.assert_close(method.correct(encoded, TASKS[0])[0], encoded[0])
    assert method.penalty() is None
    method.train()
    first, second = (method.correct(encoded, TASKS[0])[0] for _ in range(2))
    assert not torch.equal(first, second)
    penalty = method.penalty()
    assert penalty is not None
    assert penalty.item() == 0.0  # the standard normal at first
    assert method.penalty() is None  # it is of the last batch alone
