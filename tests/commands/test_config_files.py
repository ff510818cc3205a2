"""A whole run in a file, a run again from its own config, and parts of one's own found in conf.d."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands.conftest import QUICK

from adamerge.__main__ import main
from adamerge.commands.config_files import with_config
from adamerge.errors import ConfigError
from adamerge.settings.code import own_code
from adamerge.settings.components import find_target

WHOLE = """
method: surgery
seed: 3
suite.tasks: [digits, signs]
suite: {adapt_on: {share: 0.5}, limit: 20}
method.model.rank: 4
guard: {every: 10}
start: null
evaluation:
  batch_size: 100
outputs: "a 'b' ${oc.env:HOME}"
"""


def written(folder: Path, text: str) -> str:
    (folder / "my.yaml").write_text(text)
    return str(folder / "my.yaml")


def test_keys_are_words_and_what_is_typed_wins(tmp_path: Path) -> None:
    file = written(tmp_path, WHOLE)
    assert with_config("train", ["-m", "--config", file, "seed=0,1", "--cfg", "job"]) == [
        'method="surgery"', 'suite.tasks=["digits", "signs"]', "suite.adapt_on={share: 0.5}", "suite.limit=20",
        "++method.model.rank=4", "guard={every: 10}", "start=null", "evaluation.batch_size=100",
        "outputs=\"a 'b' ${oc.env:HOME}\"", "-m", "seed=0,1", "--cfg", "job",
    ]  # fmt: skip
    assert with_config("train", [f"--config={file}", "method=ties"])[0] == "seed=3"
    assert with_config("predict", ["run=a"]) == ["run=a"]


def test_a_file_is_the_command_that_it_says(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, WHOLE)
    main(["train", "--cfg", "job", "--config", file, "seed=4"])
    shown = capsys.readouterr().out
    for line in (
        "rank: 4",
        "name: surgery",
        "seed: 4",
        "share: 0.5",
        "every: 10",
        "batch_size: 100",
        "limit: 20",
    ):
        assert line in shown


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "cannot be read: No such file"),
        ("a: [", "is no YAML"),
        ("a: 1\na: 2", "is no YAML"),
        ("- method", "should hold keys as on the command line"),
        ("defaults: [a]", "defaults is for a YAML of a config group"),
    ],
)
def test_what_is_no_such_file_is_said(tmp_path: Path, text: str | None, told: str) -> None:
    file = str(tmp_path / "none.yaml") if text is None else written(tmp_path, text)
    with pytest.raises(ConfigError, match=told):
        with_config("train", ["--config", file])


def test_one_file_that_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs a file"):
        with_config("train", ["--config"])
    with pytest.raises(ConfigError, match="one file"):
        with_config("train", ["--config", "a", "--config=b"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("metod: surgery", "metod: no such option; did you mean 'method'"),
        ("method: surgrey", "no method 'surgrey'; did you mean 'surgery'"),
        ("method: surgery\nmethod.model.rnak: 3", "Surgery has no such option; did you mean 'rank'"),
        ("seed: '3'", "seed: should be a whole number"),
    ],
)
def test_mistakes_in_the_file_are_those_of_a_command_line(
    home: Path, capsys: pytest.CaptureFixture[str], text: str, told: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "--config", written(home, text)])
    assert stop.value.code == 2
    assert told in " ".join(capsys.readouterr().err.split())


def test_a_run_is_made_again_from_its_folder(
    train: Any, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, first = train("adamerging_taskwise", steps=1)
    preset = (folder / "preset.json").read_text()
    main(["train", f"rerun={folder}", "outputs=again"])
    (again,) = home.glob("again/*/*/*/results.json")
    assert again.parent.name == folder.name
    found = json.loads(again.read_text())
    assert {task: own["accuracy"] for task, own in found["tasks"].items()} == {
        task: own.accuracy for task, own in first.tasks.items()
    }
    assert (again.parent / "preset.json").read_text() == preset
    capsys.readouterr()
    for words, told in (
        ((f"rerun={folder}", "method=surgery"), "method: is chosen in the run's own config already"),
        ((f"rerun={folder}", "sed=1"), "sed: no such option; did you mean 'seed'"),
        ((f"rerun={folder}", "seed=1,2"), "seed: has several values"),
        ((f"rerun={home / 'none'}",), "is no run folder"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["train", *words])
        assert stop.value.code == 2
        assert told in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit):
        main(["merge", f"rerun={folder}"])
    assert "was trained; give train rerun=" in capsys.readouterr().err


def test_a_merge_without_evaluation_is_made_again_as_such(home: Path) -> None:
    main(["merge", "rule=weight_average", "evaluate=false", *QUICK[:3]])
    (config,) = home.glob("outputs/*/*/*/config.yaml")
    main(["merge", f"rerun={config.parent}", "outputs=again"])
    (again,) = home.glob("again/*/*/*/merged.safetensors")
    assert again.parent.name == config.parent.name
    assert again.read_bytes() == (config.parent / "merged.safetensors").read_bytes()
    assert not (again.parent / "results.json").exists()


def test_conf_d_has_choices_and_modules(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = home / "conf.d"
    (own / "objective").mkdir(parents=True)
    (own / "objective" / "mine_of_conf_d.yaml").write_text(
        "# @package method.objective\n_target_: mine_of_conf_d.Mine\nstrength: 2.0\n"
    )
    target = {"_target_": "mine_of_conf_d.Mine"}
    with pytest.raises(ConfigError, match=r"where it lies in conf\.d"):
        find_target(target["_target_"])
    (own / "mine_of_conf_d.py").write_text(
        "class Mine:\n    def __init__(self, strength: float) -> None: ...\n"
    )
    assert find_target(target["_target_"]).__name__ == "Mine"
    assert list(own_code(target)) == ["adamerge", "mine_of_conf_d"]
    main(["train", "objective=mine_of_conf_d", "--cfg", "job"])
    assert "strength: 2.0" in capsys.readouterr().out
