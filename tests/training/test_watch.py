"""Evaluation while training is looked at and leaves no trace: the same run to the bit, whatever it draws."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from conftest import make_pool
from torch import Tensor
from training.test_adaptation import QUIET, Rounds

from adamerge.methods import AdaMerging, Method
from adamerge.objectives.entropy import Entropy
from adamerge.tracking.journal import Journal
from adamerge.training import Adaptation, Schedule, run_steps
from adamerge.training.journaling import Watch


class Noisy(AdaMerging):
    """A method with dropout: its training depends on the random numbers and on the mode."""

    def correct(self, encoded: tuple[Tensor, ...], task: str) -> tuple[Tensor, ...]:
        return tuple(torch.nn.functional.dropout(x, 0.3, self.training) for x in encoded)


def trained(
    folder: Path, every: int | None, steps: int = 7, stop: int | None = None
) -> tuple[Method, list[dict]]:
    torch.manual_seed(0)
    method = Noisy(make_pool(dtype=torch.float32), "layer")
    looks = iter(range(100))

    def look() -> dict[str, float | None]:
        method.eval()
        torch.rand(3)
        return {"eval/accuracy": 0.25, "eval/agreement": float(next(looks)), "eval/estimate": None}

    module = Adaptation(method, Entropy(), partial(torch.optim.Adam, lr=1e-2), Schedule(steps, batch_size=4))
    watch = None if every is None else Watch(look, every, steps)
    if stop is not None:
        module_stop(module, stop)
    with suppress(KeyboardInterrupt, SystemExit):  # Lightning ends the process after an interruption
        run_steps(module, Rounds(), steps, folder=folder, trainer=QUIET, checkpoint_every=2, watch=watch)
    return method, Journal(folder / "journal.jsonl").read()


def module_stop(module: Adaptation, at: int) -> None:
    """Interrupt the training before step `at`."""
    step = module.training_step

    def stopping(stream: dict, batch_idx: int) -> None:
        if module.step == at:
            raise KeyboardInterrupt
        step(stream, batch_idx)

    module.training_step = stopping  # type: ignore[method-assign]


def test_a_watched_run_is_the_unwatched_one_to_the_bit(tmp_path: Path) -> None:
    plain, records = trained(tmp_path / "plain", None)
    watched, watched_records = trained(tmp_path / "watched", 2)
    assert torch.equal(plain.merging.values, watched.merging.values)
    assert [r["loss"] for r in records] == [r["loss"] for r in watched_records]
    assert not any("eval/accuracy" in r for r in records)


def test_the_first_every_second_and_the_last_step_are_evaluated(tmp_path: Path) -> None:
    _, records = trained(tmp_path, 2)
    assert [r["step"] for r in records if "eval/agreement" in r] == [0, 1, 3, 5, 6]
    assert records[3]["eval/accuracy"] == 0.25
    assert records[3]["eval/estimate"] is None


def test_a_watched_run_resumes_to_the_same_bits(tmp_path: Path) -> None:
    whole, records = trained(tmp_path / "whole", 2)
    _, cut = trained(tmp_path / "parts", 2, stop=5)
    assert len(cut) == 5
    parts, resumed = trained(tmp_path / "parts", 2)
    assert torch.equal(whole.merging.values, parts.merging.values)
    assert [(r["step"], r["loss"]) for r in resumed] == [(r["step"], r["loss"]) for r in records]
    assert [r["step"] for r in resumed if "eval/agreement" in r] == [0, 1, 3, 5, 6]
