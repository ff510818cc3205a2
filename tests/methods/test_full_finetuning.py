"""Full fine-tuning by entropy, restated (float64, 1e-9)."""

from __future__ import annotations

import pytest
from restating import ADAM, adapt, arithmetic, clones, close, entropy_of, images64, pool64

from adamerge.methods import FullFinetuning
from adamerge.objectives.entropy import Entropy
from adamerge.rounds.schedule import Schedule
from adamerge.rules.linear import TaskArithmetic

RULED = TaskArithmetic()
pytestmark = pytest.mark.usefixtures("double_precision")


def test_full_fine_tuning_by_entropy() -> None:
    pool, images = pool64(), images64()
    method = FullFinetuning(RULED(pool)).double()
    adapt(method, Entropy(), images, Schedule(2, batch_size=4))
    theta = clones(arithmetic(pool)[key] for key in pool.keys)
    optimizer = ADAM(theta)
    for _ in range(2):
        optimizer.zero_grad()
        entropy_of(pool, dict(zip(pool.keys, theta, strict=True)), images).backward()
        optimizer.step()
    for own, restated in zip(method.theta, theta, strict=True):
        close(own, restated)
