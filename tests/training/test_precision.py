"""Mixed precision: what stays in full precision, and which infinities are ordinary."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from conftest import TASKS, make_pool, make_vit_pool
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor

from adamerge.errors import RunError
from adamerge.merging.mixing import mixed_linear
from adamerge.methods import AdaMerging, FrankWolfe, FullFinetuning
from adamerge.methods.atm import AlternatingTuning
from adamerge.objectives.entropy import Entropy
from adamerge.objectives.labels import CrossEntropy
from adamerge.rounds.schedule import Schedule
from adamerge.rules.linear import Pretrained, TaskArithmetic
from adamerge.training import Adaptation
from adamerge.training.step_module import step_loader

ADAM = partial(torch.optim.Adam, lr=1e-2)


class Rounds(torch.utils.data.Dataset):
    def __init__(self, spoiled: int | None = None, labels: bool = False) -> None:
        self.spoiled, self.labels = spoiled, labels

    def __getitem__(self, step: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(step)
        images = {t: torch.randn(4, 3, 4, 4, generator=generator) for t in TASKS}
        if step == self.spoiled:
            images[TASKS[0]][0] = float("nan")
        if self.labels:
            return {t: {"images": x, "target": (torch.arange(4) % 3,)} for t, x in images.items()}
        return images


def run(module: Adaptation, steps: int, scale: float | None, data: Rounds | None = None) -> float:
    """Train with 16-mixed and a loss scale that starts there (None: in full precision); the scale at the end."""
    scaler = None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=10**6)
    plugins: Any = [] if scaler is None else [MixedPrecision("16-mixed", "cpu", scaler)]
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False, plugins=plugins,
    )  # fmt: skip
    trainer.fit(module, step_loader(data or Rounds(), module, steps))
    return 1.0 if scaler is None else scaler.get_scale()


def adapting(objective: Any = None, steps: int = 30) -> Adaptation:
    method = AdaMerging(TaskArithmetic()(make_pool(dtype=torch.float32)))
    return Adaptation(method, objective or Entropy(), ADAM, Schedule(steps, 4))


def test_overflows_of_the_loss_scale_leave_steps_out_and_nothing_else() -> None:
    module = adapting()
    scale = run(module, 30, 2.0**36)
    assert module.step == 30
    assert 1.0 < scale < 2.0**30, "the scale was lowered until gradients were finite"
    method: Any = module.loop.method
    assert not torch.allclose(method.merging.values, torch.tensor(0.3), atol=1e-3)
    assert module.loop.method.merging.values.isfinite().all()


def test_a_loss_that_is_no_number_stops_under_loss_scaling_too() -> None:
    module = adapting()
    with pytest.raises(RunError, match="loss is not finite at step 4"):
        run(module, 30, 2.0**10, Rounds(spoiled=4))
    assert module.loop.method.merging.values.isfinite().all()


class Cusp:
    """A finite loss whose gradient is infinite."""

    name, target = "cusp", "none"

    def __call__(self, method: Any, representation: Any, task: str, target: Any = ()) -> Tensor:
        return ((representation[-1] - representation[-1].detach()) ** 2).sum().sqrt()


def test_a_gradient_that_no_scale_makes_finite_stops() -> None:
    with pytest.raises(RunError, match="gradient is not finite"):
        run(adapting(Cusp(), 100), 100, 2.0**10)
    with pytest.raises(RunError, match="gradient is not finite at step 0"):
        run(adapting(Cusp()), 30, None)


def tuned(scale: float | None) -> list[Tensor]:
    torch.manual_seed(0)
    method = FullFinetuning(Pretrained()(make_vit_pool()))
    sgd = partial(torch.optim.SGD, lr=1e-2)
    module = Adaptation(method, CrossEntropy(), sgd, Schedule(2, 2), loop=AlternatingTuning)
    run(module, 2, scale, Rounds(labels=True))
    return [p.detach() for p in method.theta]


def test_local_optimisers_see_the_gradient_without_the_loss_scale() -> None:
    for scaled, full in zip(tuned(2.0**10), tuned(None), strict=True):
        torch.testing.assert_close(scaled, full, rtol=0, atol=2e-4)


def test_labelled_gradients_do_not_overflow() -> None:
    """A few images choose an expert: in full precision, without the scale."""
    picks = []
    for scale in (None, 2.0**40):
        method = FrankWolfe(TaskArithmetic()(make_vit_pool()))
        run(Adaptation(method, CrossEntropy(), None, Schedule(3, 4)), 3, scale, Rounds(labels=True))
        picks.append(method.merging.values.detach())
    assert torch.equal(*picks)


@pytest.mark.parametrize("layout", ["open_clip", "hf"])
def test_the_contraction_is_not_cast_down(layout: str) -> None:
    """dL/dlambda is the sum of dL/dtheta * tau, exact to float32, of whatever dL/dtheta the narrow pass gave."""
    torch.manual_seed(0)
    method = AdaMerging(TaskArithmetic()(make_vit_pool()), layout=layout, clamp=False)  # type: ignore[arg-type]
    exact = method.merge()
    images = torch.randn(16, 3, 4, 4)
    with torch.autocast("cpu", torch.bfloat16), method.merged_once() as merged:
        assert all(torch.equal(merged.leaves[key], value) for key, value in exact.items()), (
            "merged in bfloat16"
        )
        method.logits(images, TASKS[0]).square().mean().backward()
        theta = {key: leaf.grad.double() for key, leaf in merged.leaves.items() if leaf.grad is not None}
        merged.contract_gradient()
    found = method.merging.values.grad
    assert found is not None
    for layer in method.layers:
        if layer.key not in theta:
            continue
        parts = len(layer.names)
        gradient = theta[layer.key].reshape(-1).chunk(parts)
        for k in range(len(TASKS)):
            tau = method.pool.vectors[layer.key][k].double().chunk(parts)
            for row, (g, t) in enumerate(zip(gradient, tau, strict=True)):
                size = float((g * t).abs().sum())
                expected = float((g * t).sum())
                assert abs(float(found[layer.first_row + row, k]) - expected) <= 1e-5 * size + 1e-12


@pytest.mark.parametrize("mode", ["weights", "outputs"])
def test_the_gates_gradient_is_not_cast_down(mode: str) -> None:
    torch.manual_seed(0)
    x, gates = torch.randn(2, 5, 64), torch.full((2, 3), 0.3, requires_grad=True)
    weight, bias = torch.zeros(32, 64), torch.zeros(32)
    weights, biases = torch.zeros(3, 32 * 64), torch.randn(3, 32) + 100.0
    with torch.autocast("cpu", torch.bfloat16):
        y = mixed_linear(x, gates, weight, bias, weights, biases, mode)  # type: ignore[arg-type]
        torch.testing.assert_close(y[0, 0], 0.3 * biases.sum(0), rtol=1e-6, atol=0)
        y.sum().backward()
    expected = 5 * biases.double().sum(1).expand(2, 3)
    torch.testing.assert_close(gates.grad.double(), expected, rtol=1e-6, atol=0)
