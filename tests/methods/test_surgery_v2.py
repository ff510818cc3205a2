"""SurgeryV2, restated (float64, 1e-9)."""

from __future__ import annotations

import pytest
from conftest import TASKS
from restating import ADAM, adapt, adapter, arithmetic, close, expert, forward, images64, pool64, seeded
from torch import Tensor
from torch.nn.functional import l1_loss

from adamerge.methods import SurgeryV2
from adamerge.objectives.alignment import Alignment
from adamerge.rules.linear import TaskArithmetic
from adamerge.training import Schedule

RULED = TaskArithmetic()
pytestmark = pytest.mark.usefixtures("double_precision")


def test_surgery_v2() -> None:
    pool, images = pool64(), images64()
    method = seeded(lambda: SurgeryV2(RULED(pool), rank=2))
    state = {key: value.detach().clone().requires_grad_() for key, value in method.named_parameters()}
    adapt(method, Alignment(), images, Schedule(2, batch_size=4, update="task"))

    optimizer = ADAM(state.values())
    merged = arithmetic(pool)
    for _ in range(2):
        for k, task in enumerate(TASKS):

            def after(index: int, x: Tensor, k: int = k) -> Tensor:
                stem = f"inner.{k}.{index}"
                return adapter(x, state[f"{stem}.down.weight"], state[f"{stem}.up.weight"])

            means, feature = forward(merged, images[task], after)
            feature = adapter(feature, state[f"final.{k}.down.weight"], state[f"final.{k}.up.weight"])
            targets, target = forward(expert(pool, task), images[task])
            loss = sum(
                ((a - b).abs().mean() for a, b in zip(means, targets, strict=True)), l1_loss(feature, target)
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for key, own in method.named_parameters():
        close(own, state[key])
