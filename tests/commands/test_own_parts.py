"""A method and an objective from outside the package: one file, and one YAML each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adamerge.__main__ import main

CODE = '''
from torch import nn, zeros

from adamerge.methods.static import Static


class Shift(Static):
    """A learned vector per task is added to the merged feature."""

    def __init__(self, pool):
        super().__init__(pool)
        self.shifts = nn.ParameterList(zeros(pool.base["visual.proj"].shape[1]) for _ in pool.tasks)

    def correct(self, encoded, task):
        return (encoded[-1] + self.shifts[self.task_index(task)],)


class Furthest:
    """The largest difference of a channel to the expert's, over a batch."""

    name = "largest difference to the expert"
    target = "expert"

    def __init__(self, power: float = 1.0) -> None:
        self.power = power

    def __call__(self, method, representation, task, target):
        return (representation[-1] - target[-1]).abs().amax() ** self.power
'''
METHOD = """
defaults:
  - override /objective@_global_.objective: alignment
  - _self_
name: shift
needs: unlabeled images
model: {_target_: own_parts.Shift}
optimizer: {_target_: torch.optim.Adam, _partial_: true, lr: 1.0e-2}
schedule: {steps: 2, batch_size: 8, batches_per_task: 1, update: task, feed: resample, forward_images: null}
"""
OBJECTIVE = """
# @package method.objective
_target_: own_parts.Furthest
power: 1.0
"""


def test_a_method_and_an_objective_of_ones_own(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in (("method/shift", METHOD), ("objective/furthest", OBJECTIVE)):
        path = home / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    (home / "own_parts.py").write_text(CODE)
    monkeypatch.syspath_prepend(home)
    monkeypatch.setenv("ADAMERGE_MODULES", "own_parts")
    small = (
        "suite.tasks=[digits,signs]",
        "++suite.limit=20",
        "trainer=cpu",
        "trainer.enable_progress_bar=false",
    )
    conf = ("--config-dir", str(home / "conf"))
    main(
        [
            "train",
            "-m",
            *conf,
            "method=shift,surgery",
            "objective=furthest",
            "method.schedule.steps=2",
            *small,
        ]
    )
    main(["train", *conf, "method=shift", *small])
    found = [json.loads(path.read_text()) for path in home.glob("outputs/*/*/*/results.json")]
    assert sorted((r["method"], r["objective"]) for r in found) == [
        ("shift", "distance to the expert (mean absolute difference)"),
        ("shift", "largest difference to the expert"),
        ("surgery", "largest difference to the expert"),
    ]
    assert "mistake" not in capsys.readouterr().err
