"""Unseen tasks, experts of no use, backdoors, and the experiments that are made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands.conftest import QUICK, finished

from adamerge.__main__ import main
from adamerge.settings.groups import method_names
from adamerge.settings.paths import conf_dir
from adamerge.tracking.results import read_results

MAKING = ["checkpoints=mini", "steps=2", "batch_size=16", "warmup=1", *QUICK[1:3]]


@pytest.mark.parametrize("method", ["adamerging_layerwise", "surgery", "surgery_v2", "tinting", "wemoe"])
def test_unseen_tasks_are_evaluated_with_their_own_heads(train: Any, method: str) -> None:
    folder, results = train(method, "suite.unseen=[scenes]", "evaluation.batch_size=200", steps=1)
    scenes = results.unseen["scenes"]
    assert scenes.accuracy is not None
    assert scenes.pretrained == pytest.approx(0.634, abs=0.01)  # the base, as in the README's table
    assert (scenes.expert, scenes.agreement) == (None, None)
    assert set(results.tasks) == {"digits", "signs"}
    if (folder / "coefficients.json").exists():
        assert json.loads((folder / "coefficients.json").read_text())["tasks"] == ["digits", "signs"]


def test_at_coefficient_zero_an_unseen_task_is_the_base(home: Path) -> None:
    main(["merge", "rule=task_arithmetic", "rule.scale=0.0", "suite.unseen=[scenes]", *QUICK[:3]])
    results = read_results(finished(home)["task_arithmetic"])
    assert results.unseen["scenes"].accuracy == results.unseen["scenes"].pretrained
    assert (
        json.loads((finished(home)["task_arithmetic"] / "results.json").read_text())["unseen_average"]
        is not None
    )


@pytest.mark.parametrize(
    ("unseen", "complaint"), [("[scene]", "did you mean 'scenes'"), ("[digits]", "already")]
)
def test_an_unseen_task_must_be_another_task_of_the_suite(
    home: Path, capsys: pytest.CaptureFixture[str], unseen: str, complaint: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", f"suite.unseen={unseen}", *QUICK])
    assert stop.value.code == 2
    assert complaint in capsys.readouterr().err


def test_a_rule_with_an_encoder_per_task_has_none_for_an_unseen_one(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["merge", "rule=emr", "suite.unseen=[scenes]", *QUICK[:3]])
    assert stop.value.code == 2
    assert "no task vector 'scenes'" in capsys.readouterr().err


def test_experts_of_no_use_are_merged_too(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAMERGE_CACHE", str(home / "own"))
    main(["finetune", "suite.tasks=[digits]", "shuffle=1", *MAKING])
    assert (home / "own/zoo/mini/mini/irrelevant/digits_1.safetensors").exists()
    words = ["suite.irrelevant=[digits_1]", *QUICK]
    for method in ("adamerging_taskwise", "fw_soft", "surgery", "weight_average"):
        steps = [] if method == "weight_average" else ["method.schedule.steps=2"]
        main(["train", f"method={method}", *steps, *(words if steps else words[:-1])])
    folder = finished(home)["adamerging_taskwise"]
    table = json.loads((folder / "coefficients.json").read_text())
    assert table["tasks"] == ["digits", "signs", "digits_1"]
    assert read_results(folder).trainable_parameters == 3
    assert read_results(finished(home)["surgery"]).trainable_parameters == 2 * 2 * 16 * 64


def test_a_backdoor_is_made_merged_and_measured(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ADAMERGE_CACHE", str(home / "own"))
    attack = ["attack=patch", "attack.tasks=[signs]", "attack.target=2"]
    main(["finetune", *attack, *MAKING[:1], "steps=40", "batch_size=64", "warmup=1", *QUICK[1:3]])
    assert [p.name for p in (home / "own").rglob("*.safetensors") if "signs" in p.name] == [
        "signs-2-6.safetensors"
    ]
    main(["merge", "rule=individual", *attack, *QUICK[:3]])
    results = read_results(finished(home)["individual"])
    signs = results.attack["signs"]
    assert signs.success == signs.expert
    assert signs.success > signs.clean  # the trigger works after a few steps already
    assert "attack success on signs" in capsys.readouterr().out
    main(["merge", "rule=pretrained", *attack, *QUICK[:3]])
    base = read_results(finished(home)["pretrained"]).attack["signs"]
    assert base.expert == signs.expert
    assert base.success != signs.success


EXPERIMENTS = sorted(path.stem for path in (conf_dir() / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_with_its_sweep(
    name: Any, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = yaml.safe_load((conf_dir() / "experiment" / f"{name}.yaml").read_text())
    assert content["experiment_name"] == name
    methods = content["hydra"]["sweeper"]["params"]["method"].split(",")
    if not methods[0].startswith("${"):  # those that the family of experts names: test_clip_experiments.py
        assert set(methods) <= set(method_names())
    main(["train", f"experiment={name}", "--cfg", "job"])
    assert f"experiment_name: {name}" in capsys.readouterr().out


def test_an_experiment_runs_as_a_sweep(home: Path) -> None:
    words = ["experiment=robustness", "method=weight_average", "suite.corruption=jpeg", "suite.tasks=[signs]"]
    main(["train", "-m", *words, *QUICK[1:3]])
    (path,) = home.glob("outputs/robustness/weight_average/*/results.json")
    assert read_results(path.parent).suite == "mini, jpeg 2"
