"""ATM: alternating tuning and merging, restated (float64, 1e-9)."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from restating import TASKS, adapt, clones, close, forward, images64, labeled64, labels64, logits, pool64
from torch.nn.functional import cross_entropy

from adamerge.methods import FullFinetuning
from adamerge.methods.atm import AlternatingTuning
from adamerge.objectives.labels import CrossEntropy
from adamerge.rounds.schedule import Schedule
from adamerge.rules.linear import Pretrained

pytestmark = pytest.mark.usefixtures("double_precision")


def test_alternating_tuning() -> None:
    pool = pool64()
    method = FullFinetuning(Pretrained()(pool)).double()
    sgd = partial(torch.optim.SGD, lr=1e-2, momentum=0.9)
    adapt(method, CrossEntropy(), labeled64(), Schedule(2, batch_size=2), AlternatingTuning, sgd)

    theta = [pool.base[key].clone() for key in pool.keys]
    for _ in range(2):
        differences = [torch.zeros_like(value) for value in theta]
        for task in TASKS:
            local = clones(theta)
            optimizer = sgd(local)
            for x, y in zip(images64()[task].split(2), labels64()[task].split(2), strict=True):
                optimizer.zero_grad()
                state = dict(zip(pool.keys, local, strict=True))
                cross_entropy(logits(pool.heads[task].weight, forward(state, x)[1]), y).backward()
                optimizer.step()
            differences = [
                d + (p.detach() - o) / 3 for d, p, o in zip(differences, local, theta, strict=True)
            ]
        theta = [o + d for o, d in zip(theta, differences, strict=True)]
    for own, restated in zip(method.theta, theta, strict=True):
        close(own, restated)
