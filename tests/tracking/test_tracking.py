"""The journal survives kills; results are read back as written, or refused with a reason."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from adamerge.errors import RunError
from adamerge.tracking.journal import Journal
from adamerge.tracking.results import (
    PartResult,
    Reference,
    Results,
    TaskResult,
    mean,
    read_results,
    write_results,
)


def example(**changes: Any) -> Results:
    tasks = {
        "signs": TaskResult(accuracy=0.8, n=100, expert=1.0, pretrained=0.4, normalized=0.8, agreement=0.75),
        "digits": TaskResult(accuracy=0.6, n=900, expert=0.75, pretrained=0.2, normalized=0.8, agreement=0.5),
    }
    accuracy: dict[str, float | None] = {"signs": 0.4, "digits": 0.2}
    content = {
        "run_id": "abc", "command": "train", "method": "adamerging_layerwise", "rule": "none", "suite": "mini",
        "backbone": "mini", "seed": 0, "steps": 3, "trainable_parameters": 8,
        "seconds": {"prepare": 1.0, "adapt": 2.0, "evaluate": 3.0}, "peak_memory_bytes": 2**30, "tasks": tasks,
        "versions": {"torch": "2"}, "device": "cpu",
        "baselines": {"pretrained": Reference(accuracy, {"signs": 0.5, "digits": 0.5})},
    }  # fmt: skip
    return Results(**{**content, **changes})


def test_averages_are_unweighted(tmp_path: Path) -> None:
    write_results(tmp_path, example())
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["average"] == pytest.approx(0.7)
    assert content["normalized_average"] == pytest.approx(0.8)
    assert content["agreement"] == pytest.approx(0.625)
    assert read_results(tmp_path) == example()


def test_an_unknown_accuracy_makes_the_average_unknown() -> None:
    assert mean([0.5, None]) is None
    assert mean([]) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no results.json"),
        ("{", "damaged"),
        ('{"schema": 7}', "schema 7"),
        ('{"schema": 1}', "damaged"),
        ("[]", "damaged"),
    ],
)
def test_folders_without_good_results(tmp_path: Path, content: Any, message: str) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(RunError, match=message):
        read_results(tmp_path)


def test_a_torn_last_line_is_left_out_and_a_torn_middle_is_an_error(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    for step in range(3):
        journal.append({"step": step, "loss": 1.5})
    with journal.path.open("a") as file:
        file.write('{"step": 3, "lo')
    assert [r["step"] for r in journal.read()] == [0, 1, 2]
    journal.truncate_after(1)
    assert journal.path.read_text() == '{"step": 0, "loss": 1.5}\n{"step": 1, "loss": 1.5}\n'
    journal.path.write_text('{"step": 0}\n{"st\n{"step": 2}\n')
    with pytest.raises(RunError, match="line 2"):
        journal.read()


@pytest.mark.parametrize("line", ["[1]", '{"loss": 1.0}', '{"step": "a"}', "garbage"])
def test_a_line_that_is_no_record_of_a_step_names_itself(tmp_path: Path, line: str) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(f'{line}\n{{"step": 1}}\n')
    with pytest.raises(RunError, match=r"journal.jsonl, line 1, is damaged.*\n  Delete it"):
        Journal(path).read()


def test_numbers_that_are_not_finite_stay_valid_json(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append({"step": 0, "loss": float("nan")})
    assert journal.read() == [{"step": 0, "loss": None}]


def test_tracking_and_report_need_no_torch() -> None:
    code = (
        "import sys, adamerge.tracking.journal, adamerge.tracking.results, adamerge.report.summary;"
        "sys.exit('torch' in sys.modules or 'pytorch_lightning' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_results_of_before_there_were_protocols_are_read(tmp_path: Path) -> None:
    write_results(tmp_path, example())
    content = json.loads((tmp_path / "results.json").read_text())
    new = (
        "protocol",
        "task_known",
        "chooser",
        "lineage",
        "stream",
        "adapted",
        "held_out",
        "gap",
        "ece",
        "objective",
    )
    old = {key: value for key, value in content.items() if key not in new} | {"schema": 1}
    for task in old["tasks"].values():
        for key in ("ece", "nll", "brier"):
            del task[key]
    (tmp_path / "results.json").write_text(json.dumps(old))
    read = read_results(tmp_path)
    assert read.average == pytest.approx(0.7)
    assert (read.protocol, read.gap, read.ece, read.stream) == (None, None, None, "independent")


def test_the_gap_is_between_the_parts(tmp_path: Path) -> None:
    parts = {
        "adapted": {"signs": PartResult(0.9, 0.8, 50), "digits": PartResult(0.7, 0.8, 450)},
        "held_out": {"signs": PartResult(0.7, 0.8, 50), "digits": PartResult(0.5, 0.8, 450)},
    }
    write_results(tmp_path, example(**parts))
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["gap"] == pytest.approx(0.2)
    assert read_results(tmp_path).adapted == parts["adapted"]
