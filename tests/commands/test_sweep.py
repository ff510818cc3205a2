"""A sweep from the command line: one line per job, a table at the end, and the same command again."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands.conftest import QUICK

from adamerge.__main__ import main
from adamerge.commands.hydra_entry import WORST
from adamerge.commands.train import searched
from adamerge.errors import RunError
from adamerge.runs import recipe, worker_gpu
from adamerge.tracking.results import Results, TaskResult

WORDS = ["train", "-m", "method=surgery", "seed=0,1", "method.schedule.steps=2", "checkpoint_every=1", *QUICK]


def run() -> int:
    try:
        main(WORDS)
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def test_a_job_that_fails_stops_no_other_and_the_same_command_finishes_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate: Callable[..., Any] = recipe.evaluate

    def failing(run: Any, *rest: Any) -> Any:
        if run.settings.seed == 0:
            raise RunError("no more room")
        return evaluate(run, *rest)

    monkeypatch.setattr(recipe, "evaluate", failing)
    assert run() != 0
    first = capsys.readouterr()
    assert "no more room" in first.err
    assert "1 job of the sweep failed" in first.err
    assert first.out.count("surgery, seed 1: adapted in") == 1
    assert "left out:" in first.out
    assert "failed: RunError: no more room" in first.out
    assert len(list(home.glob("outputs/*/*/*/results.json"))) == 1

    monkeypatch.setattr(recipe, "evaluate", evaluate)
    assert run() == 0
    second = capsys.readouterr().out
    assert "seed 0, run" in second
    assert "goes on from its last checkpoint" in second
    assert "surgery, seed 1: finished before, average" in second
    assert "left out" not in second
    table = second[second.index("mini, mini, 2 tasks") :]
    assert any("surgery" in line and line.split()[-1] == "2" for line in table.splitlines())  # two seeds
    assert "python -m adamerge compare outputs/mini" in table


def test_jobs_in_processes_of_their_own_come_into_the_same_table(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    main([*WORDS, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"])
    out = capfd.readouterr().out
    assert len(list(home.glob("outputs/*/surgery/*/results.json"))) == 2
    table = out[out.index("mini, mini, 2 tasks") :]
    assert any("surgery" in line and line.split()[-1] == "2" for line in table.splitlines())


def _claim(folder: Path, ready: Any, done: Any, claimed: Any) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = "4,7"
    worker_gpu.take_gpu(folder)
    worker_gpu.take_gpu(folder)  # its next job keeps the GPU
    claimed.put(os.environ["CUDA_VISIBLE_DEVICES"])
    ready.release()
    done.wait()


def test_each_worker_has_a_gpu_of_its_own_and_gives_it_back_at_its_end(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")

    def claims(workers: int) -> list[str]:
        ready, done, claimed = context.Semaphore(0), context.Event(), context.Queue()
        words = (tmp_path, ready, done, claimed)
        processes = [context.Process(target=_claim, args=words) for _ in range(workers)]
        for process in processes:
            process.start()
        for _ in processes:
            assert ready.acquire(timeout=60)
        found = [claimed.get(timeout=60) for _ in processes]
        done.set()
        for process in processes:
            process.join(60)
        return sorted(found)

    assert claims(2) == ["4", "7"]
    assert claims(4) == ["4", "4", "7", "7"]


def test_elsewhere_the_scheduler_gives_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    worker_gpu.take_gpu(tmp_path / "of another machine")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,7"


def test_the_slurm_launcher_takes_our_options(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    words = [
        "hydra/launcher=submitit_slurm",
        "hydra.launcher.gpus_per_node=1",
        "hydra.launcher.timeout_min=60",
    ]
    main(["train", *words, "--cfg", "hydra"])
    shown = capsys.readouterr().out
    assert "hydra_submitit_launcher.submitit_launcher.SlurmLauncher" in shown
    assert "gpus_per_node: 1" in shown


@pytest.mark.parametrize(
    ("what", "value"), [("agreement", 0.6), ("accuracy", WORST), ("entropy", -0.3), ("estimate", WORST)]
)
def test_what_a_search_is_told_is_a_number_whatever_happens(what: str, value: float) -> None:
    task = TaskResult(
        accuracy=None, n=1, expert=None, pretrained=None, normalized=None, agreement=0.6, entropy=0.3,
        estimate=float("nan"),
    )  # fmt: skip
    results = Results(
        run_id="x", command="train", method="m", rule="none", suite="s", backbone="b", seed=0, steps=1,
        trainable_parameters=1, seconds={}, peak_memory_bytes=1, tasks={"a": task}, versions={}, device="cpu",
    )  # fmt: skip
    assert searched(results, what) == value
