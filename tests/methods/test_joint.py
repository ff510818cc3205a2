"""A task-specific part and merging coefficients that are learned jointly: any of the first with any of the second."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from conftest import TASKS
from restating import ADAM, adapt, close, expert, forward, images64, pool64, seeded, tau
from torch.nn.functional import l1_loss

from adamerge.errors import PoolError
from adamerge.merging import Pool, learned
from adamerge.methods import AdaMerging, Surgery, SurgeryV2, Tinting
from adamerge.methods.gradients import Gradients
from adamerge.methods.with_coefficients import WithCoefficients
from adamerge.objectives.agreement import Agreement
from adamerge.objectives.alignment import Alignment
from adamerge.objectives.entropy import Entropy
from adamerge.rounds.batch import Batch
from adamerge.rules.linear import Individual, TaskArithmetic
from adamerge.training import Schedule

pytestmark = pytest.mark.usefixtures("double_precision")
LAYERWISE = partial(learned, granularity="layer", start=0.3)
TASKWISE = partial(learned, granularity="task", start=0.3)
PARTS: dict[str, partial[WithCoefficients]] = {
    "surgery": partial(Surgery, rank=2),
    "surgery_v2": partial(SurgeryV2, rank=2),
    "tinted head": partial(Tinting),
    "tinted layer": partial(Tinting, layer="visual.transformer.resblocks.1.mlp"),
}


def made(part: str, pool: Pool, coefficients: object = LAYERWISE) -> WithCoefficients:
    method = seeded(lambda: PARTS[part](TaskArithmetic()(pool), coefficients=coefficients))
    with torch.no_grad():  # an adapter starts as the identity, whose first layer has no gradient
        for parameter in method.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return method


@pytest.mark.parametrize("coefficients", [LAYERWISE, TASKWISE], ids=["layerwise", "taskwise"])
@pytest.mark.parametrize("part", PARTS)
def test_one_round_brings_the_gradient_of_both(part: str, coefficients: object) -> None:
    """Of every coefficient and of every parameter of the part, against central differences."""
    pool, images = pool64(), images64(3)
    method = made(part, pool, coefficients)
    objective = Alignment("l2") if part.startswith("surgery") else Agreement()
    batches = [Batch(task, x) for task, x in images.items()]
    schedule = Schedule(1, batch_size=3)
    gradients = Gradients(method, objective, schedule, teacher_of(pool, method))

    def loss() -> float:
        return sum(float(value) for _, value in gradients.accumulate(batches, lambda total: None))

    gradients.accumulate(batches, lambda total: total.backward())
    parameters = dict(method.named_parameters())
    found = {name: parameter.grad.clone() for name, parameter in parameters.items()}  # type: ignore[union-attr]
    assert "merging.values" in found
    step = 1e-6
    for name, parameter in parameters.items():
        flat = parameter.data.view(-1)
        for index in torch.linspace(0, len(flat) - 1, min(len(flat), 7)).long().tolist():
            before = float(flat[index])
            flat[index] = before + step
            above = loss()
            flat[index] = before - step
            below = loss()
            flat[index] = before
            wanted = torch.tensor((above - below) / (2 * step))
            torch.testing.assert_close(found[name].view(-1)[index], wanted, rtol=1e-5, atol=1e-7)


def teacher_of(pool: Pool, method: WithCoefficients) -> WithCoefficients:
    from adamerge.methods.static import experts

    return experts(pool, method.block_means)


def test_surgery_and_layerwise_coefficients_restated() -> None:
    """Adam on both, by hand, to 1e-9; the coefficients with a learning rate of their own."""
    pool, images = pool64(), images64()
    coefficients = partial(LAYERWISE, lr=3e-2)
    method = seeded(lambda: Surgery(TaskArithmetic()(pool), rank=2, coefficients=coefficients))
    adapters = [p.detach().clone().requires_grad_() for p in method.adapters.parameters()]
    adapt(method, Alignment(), images, Schedule(3, batch_size=4))

    table = torch.full((len(pool.keys), 3), 0.3, requires_grad=True)
    own, others = ADAM([table]), ADAM(adapters)
    own.param_groups[0]["lr"] = 3e-2
    for _ in range(3):
        theta = {
            key: pool.base[key]
            + sum(table[row, k].clamp(0, 1) * tau(pool, t)[key] for k, t in enumerate(TASKS))
            for row, key in enumerate(pool.keys)
        }
        total = torch.zeros(())
        for k, task in enumerate(TASKS):
            feature = forward(theta, images[task])[1]
            corrected = feature - torch.relu(feature @ adapters[2 * k].T) @ adapters[2 * k + 1].T
            total = total + l1_loss(corrected, forward(expert(pool, task), images[task])[1])
        for optimizer in (own, others):
            optimizer.zero_grad()
        total.backward()
        for optimizer in (own, others):
            optimizer.step()
    assert method.merging is not None
    close(method.merging.values, table)
    for mine, restated in zip(method.adapters.parameters(), adapters, strict=True):
        close(mine, restated)


@pytest.mark.parametrize("part", ["surgery", "surgery_v2"])
def test_with_adapters_that_stay_the_identity_it_is_adamerging(part: str) -> None:
    pool, images = pool64(), images64()
    ruled = TaskArithmetic()(pool)
    joint = PARTS[part](ruled, coefficients=LAYERWISE)
    for name, parameter in joint.named_parameters():
        parameter.requires_grad_(name == "merging.values")
    alone = AdaMerging(ruled)
    for method in (joint, alone):
        adapt(method, Entropy(), images, Schedule(3, batch_size=4))
    assert joint.merging is not None
    close(joint.merging.values, alone.merging.values)
    merged, wanted = joint.merged_state_dict(), alone.merged_state_dict()
    assert all(torch.allclose(merged[key], wanted[key], rtol=0, atol=1e-9) for key in wanted)
    assert not torch.equal(alone.merging.values, torch.full_like(alone.merging.values, 0.3))


@pytest.mark.parametrize("part", PARTS)
def test_a_finished_model_keeps_what_the_coefficients_merged(part: str) -> None:
    pool, images = pool64(), images64(2)
    method = made(part, pool).eval()
    kept = method.kept()
    assert kept is not None
    options = {"coefficients": LAYERWISE, **PARTS[part].keywords}
    state = {key: value.clone() for key, value in method.state_dict().items()}
    again = type(method).restore(kept, state, **options).eval()
    with torch.no_grad():
        for task, x in images.items():
            assert torch.equal(method.logits(x, task), again.logits(x, task))


def test_coefficients_start_from_the_rule_where_they_name_no_start() -> None:
    ruled = TaskArithmetic(0.2)(pool64())
    method = Surgery(ruled, coefficients=partial(learned, granularity="layer"))
    assert method.merging is not None
    assert torch.equal(method.merging.values, torch.full_like(method.merging.values, 0.2))


def test_an_encoder_per_task_leaves_nothing_to_merge() -> None:
    ruled = Individual()(pool64())
    assert Surgery(ruled).merging is None
    with pytest.raises(PoolError, match="keeps one encoder per task"):
        Surgery(ruled, coefficients=LAYERWISE)


def test_an_optimiser_takes_one_group_unless_the_coefficients_have_a_rate_of_their_own() -> None:
    ruled = TaskArithmetic()(pool64())
    (group,) = Surgery(ruled, coefficients=LAYERWISE).parameter_groups()
    assert len(group["params"]) == 7
    own, others = Surgery(ruled, coefficients=partial(LAYERWISE, lr=0.1)).parameter_groups()
    assert (own["lr"], len(own["params"]), len(others["params"])) == (0.1, 1, 6)
    assert "lr" not in others
