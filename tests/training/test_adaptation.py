"""The trainer: equal to the restated update, resumes bit by bit, stops on a non-finite loss, moves only its parts."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from conftest import TASKS, make_pool
from torch import Tensor
from torch.utils.data import Dataset

from adamerge import fit
from adamerge.errors import RunError
from adamerge.methods import AdaMerging
from adamerge.objectives.entropy import Entropy, entropy
from adamerge.tracking.journal import Journal
from adamerge.training import Adaptation, Schedule, run_steps
from adamerge.training.step_module import StepModule

ADAM = partial(torch.optim.Adam, lr=1e-2)
QUIET = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}


class Rounds(Dataset[dict[str, Tensor]]):
    """Step i's images, a pure function of i; optionally spoiled with a NaN."""

    def __init__(self, per_task: int = 4, spoiled: tuple[str, int] | None = None) -> None:
        self.per_task = per_task
        self.spoiled = spoiled

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(step)
        images = {t: torch.randn(self.per_task, 3, 4, 4, generator=generator) for t in TASKS}
        if self.spoiled and self.spoiled[1] == step:
            images[self.spoiled[0]][0, 0, 0, 0] = float("nan")
        return images

    def indices(self, task: str, step: int) -> Tensor:
        return torch.arange(self.per_task) + 100 * step


def method(granularity: str = "layer") -> AdaMerging:
    return AdaMerging(make_pool(dtype=torch.float32), granularity)  # type: ignore[arg-type]


def adapt(steps: int, folder: Path | None = None, every: int = 3, **options: Any) -> AdaMerging:
    torch.manual_seed(0)
    adapted = method()
    schedule = Schedule(steps, batch_size=2, batches_per_task=2, **options)
    module = Adaptation(adapted, Entropy(), ADAM, schedule)
    run_steps(module, Rounds(), steps, folder=folder, trainer=QUIET, checkpoint_every=every)
    return adapted


def restated(steps: int) -> Tensor:
    """The reference's loop in plain torch: summed batch means, one Adam step per round."""
    adapted = method()
    optimizer = ADAM(adapted.parameters())
    for step in range(steps):
        optimizer.zero_grad()
        images = Rounds()[step]
        loss = sum(entropy(adapted.logits(b, t)).mean() for t, x in images.items() for b in x.split(2))
        loss.backward()
        optimizer.step()
    return adapted.merging.values.detach()


@pytest.mark.parametrize("forward_images", [None, 3, 8, 100])
def test_equals_the_restated_loop_however_images_are_packed(forward_images: Any) -> None:
    torch.testing.assert_close(
        adapt(4, forward_images=forward_images).merging.values.detach(), restated(4), rtol=1e-5, atol=1e-6
    )


def test_update_grain_is_data() -> None:
    """One optimiser step per round, task or batch: the numbers of steps differ, so do the results."""
    results = [adapt(2, update=update).merging.values.detach() for update in ("round", "task", "batch")]
    assert not torch.allclose(results[0], results[1])
    assert not torch.allclose(results[1], results[2])


class StopAt(pl.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        if pl_module.step == self.step:
            raise ConnectionAbortedError("killed")


@pytest.mark.parametrize("killed_at", [2, 3, 5, 6])
def test_resumes_bit_by_bit(tmp_path: Path, killed_at: int) -> None:
    whole = adapt(7, tmp_path / "whole")
    schedule = Schedule(7, batch_size=2, batches_per_task=2)
    module = Adaptation(method(), Entropy(), ADAM, schedule)
    with pytest.raises(ConnectionAbortedError):
        run_steps(
            module, Rounds(), 7, folder=tmp_path / "cut", trainer=QUIET, callbacks=[StopAt(killed_at)],
            checkpoint_every=3,
        )  # fmt: skip
    resumed = adapt(7, tmp_path / "cut")
    assert torch.equal(whole.merging.values, resumed.merging.values)
    losses = [
        [r["loss"] for r in Journal(tmp_path / name / "journal.jsonl").read()] for name in ("whole", "cut")
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 7


def test_a_finished_training_does_nothing_more(tmp_path: Path) -> None:
    first = adapt(3, tmp_path)
    again = adapt(3, tmp_path)
    assert torch.equal(first.merging.values, again.merging.values)
    assert len(Journal(tmp_path / "journal.jsonl").read()) == 3


def test_a_non_finite_loss_names_task_step_and_images(tmp_path: Path) -> None:
    rounds = Rounds(spoiled=("digits", 4))
    module = Adaptation(method(), Entropy(), ADAM, Schedule(6, batch_size=4), rounds.indices)
    with pytest.raises(RunError, match=r"step 4(.|\n)*Task digits, images \[400, 401, 402, 403\]"):
        run_steps(module, rounds, 6, folder=tmp_path, trainer=QUIET, checkpoint_every=3)
    assert module.loop.method.merging.values.isfinite().all()
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_only_the_coefficients_move(tmp_path: Path) -> None:
    pool = make_pool(dtype=torch.float32)
    before = {key: value.clone() for key, value in (*pool.base.items(), *pool.vectors.items())}
    adapted = AdaMerging(pool)
    start = adapted.merging.values.detach().clone()
    fit(adapted, [Rounds()[i] for i in range(3)], optimizer=ADAM, schedule={"steps": 3, "batch_size": 4})
    after = {**adapted.pool.base, **adapted.pool.vectors}
    assert all(torch.equal(before[key], after[key]) for key in after)
    assert not torch.equal(adapted.merging.values, start)
    assert [name for name, _ in adapted.named_parameters()] == ["merging.values"]


def test_a_checkpoint_holds_the_trained_parts_only(tmp_path: Path) -> None:
    adapt(3, tmp_path)
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert list(saved["state_dict"]) == ["loop.method.merging.values"]


def test_entropy_falls(tmp_path: Path) -> None:
    images = Rounds()[0]
    adapted = method()
    before = sum(entropy(adapted.logits(x, t)).mean() for t, x in images.items())
    fit(adapted, [images] * 30, optimizer=ADAM, schedule={"steps": 30, "batch_size": 4})
    after = sum(entropy(adapted.logits(x, t)).mean() for t, x in images.items())
    assert after < before - 0.01


def test_a_stream_that_ends_early_says_so() -> None:
    with pytest.raises(ValueError, match="ended before step 1"):
        fit(method(), [Rounds()[0]], optimizer=ADAM, schedule={"steps": 2, "batch_size": 4})


def test_an_update_that_leaves_the_finite_numbers_names_step_parameter_and_rate() -> None:
    class Module(StepModule):
        def __init__(self) -> None:
            super().__init__()
            self.coefficients = torch.nn.Parameter(torch.ones(2))

    module = Module()
    module.step = 3
    module.coefficients.grad = torch.tensor([0.0, 1e30])
    with pytest.raises(
        RunError, match=r"update of step 3 with lr=1e\+20 left numbers in coefficients that are not"
    ):
        module.take_step(torch.optim.SGD(module.parameters(), lr=1e20))
