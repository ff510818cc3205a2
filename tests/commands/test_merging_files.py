"""`merge evaluate=false` needs no data and writes the encoder that evaluating the same merge writes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands.conftest import QUICK, stored

from adamerge.__main__ import main
from adamerge.report.collect import collect
from adamerge.tracking.provenance import read_sittings
from adamerge.tracking.results import read_results


def merged_in(home: Path, name: str) -> dict[bool, Path]:
    """The run folders of a rule, by whether they have results."""
    folders = [path.parent for path in home.glob(f"outputs/mini/{name}/*/config.yaml")]
    return {(folder / "results.json").exists(): folder for folder in folders}


@pytest.mark.parametrize("name", ["ties", "none"])
def test_it_writes_what_an_evaluated_merge_writes_and_says_what_it_leaves_out(
    name: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["merge", f"rule={name}", *QUICK[:3]]
    main([*words, "evaluate=false"])
    assert "there are no results" in capsys.readouterr().out
    alone = merged_in(home, name)[False]
    assert {path.name for path in alone.iterdir() if not path.name.startswith(".")} == {
        "config.yaml",
        "lineage.json",
        "provenance.json",
        "merged.safetensors",
        "merged.safetensors.sha256",
        "heads.safetensors",
        "heads.safetensors.sha256",
        "inference.safetensors",
        "inference.safetensors.sha256",
    }
    main(words)
    evaluated = merged_in(home, name)[True]
    for file in ("merged.safetensors", "heads.safetensors", "inference.safetensors"):
        assert stored(alone / file) == stored(evaluated / file), file
    assert set(read_results(evaluated).tasks) == {"digits", "signs"}
    (sitting,) = read_sittings(alone)
    assert sitting.command == shlex.join(["adamerge", *words, "evaluate=false"])
    assert sitting.outcome == "finished"
    lineage = json.loads((alone / "lineage.json").read_text())
    assert set(lineage["uses"]) == {"base", "experts/digits", "experts/signs"}
    assert lineage["data"] == {}
    assert yaml.safe_load((alone / "config.yaml").read_text())["rule"]["name"] == name
    # It is no finished run, and no table holds it.
    assert collect([alone]).unfinished == ((alone, "merged without evaluation"),)
    assert collect([alone]).comparisons == ()


def test_no_pictures_are_needed_and_a_second_time_nothing_is_written(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["merge", "suite=folders", "suite.data=/nowhere", "suite.tasks=[digits,signs]", "rule=ties"]
    words += ["backbone=mini", "checkpoints=mini", "evaluate=false"]
    main(words)
    (path,) = home.glob("outputs/folders/ties/*/merged.safetensors")
    before = path.stat().st_mtime_ns
    main(words)
    assert "was there already" in capsys.readouterr().out
    assert path.stat().st_mtime_ns == before
    main([*words, "rerun=true"])
    assert path.stat().st_mtime_ns > before
    main([*words, "rule.scale=0.5"])
    assert len(list(home.glob("outputs/folders/ties/*/merged.safetensors"))) == 2


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["rule=emr"], "rule=emr keeps one encoder per task"),
        (["method=surgery"], "method=surgery is trained on images"),
        (["start=nowhere"], "start=... is not read"),
    ],
)
def test_what_is_no_merge_to_one_encoder_is_refused(
    words: Any, text: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["merge", *words, *QUICK[:3], "evaluate=false"])
    assert stopped.value.code == 2
    assert text in capsys.readouterr().err
    assert not (home / "outputs").exists()


RULE = '''
"""The experts' sum, with every second entry of each flattened tensor left out."""

from dataclasses import dataclass

from adamerge.rules.rule import Rule


@dataclass(frozen=True)
class Half(Rule):
    scale: float = 0.3

    def __post_init__(self):
        if self.scale < 0:
            raise ValueError("scale is not negative")

    def coefficient(self, count):
        return self.scale

    def of_tensor(self, key, base, stack):
        kept = stack.flatten(1).clone()
        kept[:, ::2] = 0.0
        return kept.view(stack.shape)
'''
POST = """

from adamerge.rules.post import PostRule


@dataclass(frozen=True)
class Less(PostRule):
    share: float = 0.5

    def __post_init__(self):
        if self.share > 1:
            raise ValueError("share is at most 1")

    def prepare(self, vectors, rule, coefficient):
        return lambda key, stack, found: self.share * found
"""
LESS = "# @package post.less\n_target_: half_rule.Less\nshare: 0.5\n"
YAML = "name: half\nsummary: every second entry\n_target_: half_rule.Half\nscale: 0.25\n"


def test_a_rule_and_a_post_rule_of_ones_own_on_hydra_s_search_path(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with --config-dir: rule=, method= and post= take them; ranges that they check are mistakes of the config."""
    (home / "half_rule.py").write_text(RULE + POST)
    for group, text in (("rule/half", YAML), ("post/less", LESS)):
        path = home / "own" / f"{group}.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    monkeypatch.setenv("ADAMERGE_MODULES", "half_rule")
    monkeypatch.syspath_prepend(home)
    own = [f"hydra.searchpath=[file://{home / 'own'}]", *QUICK[:3], "++suite.limit=24"]
    main(["train", "method=half", *own])
    main(["train", "-m", "method=half,task_arithmetic", "post=less", *own])
    main(["merge", "rule=half", "post=less", "evaluate=false", *own])
    folders = merged_in(home, "half+less")
    assert (folders[False] / "merged.safetensors").read_bytes() == (
        folders[True] / "merged.safetensors"
    ).read_bytes()
    assert {path.parent.name for path in home.glob("outputs/mini/*/*")} == {
        *("half", "half+less", "task_arithmetic+less"),
    }
    capsys.readouterr()
    for words, text in (
        (["post=less", "post.less.share=2"], "post.less: share is at most 1."),
        (["rule=half", "rule.scale=-1.0"], "rule: scale is not negative."),
        (["method=hal"], "method: no method 'hal'; did you mean 'half'"),
    ):
        with pytest.raises(SystemExit):
            main(["train", *words, *own])
        assert text in capsys.readouterr().err


def test_a_rule_of_ones_own_is_one_file_and_one_yaml(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It merges, streams, stands below a method, and is a method in a sweep."""
    (home / "half_rule.py").write_text(RULE)
    (home / "own" / "rule").mkdir(parents=True)
    (home / "own" / "rule" / "half.yaml").write_text(YAML)
    monkeypatch.setenv("ADAMERGE_MODULES", "half_rule")
    monkeypatch.syspath_prepend(home)
    own = ["--config-dir", "own", *QUICK[:3]]
    main(["merge", "rule=half", "evaluate=false", *own])
    main(["train", "-m", "method=task_arithmetic,half", *own])
    main(["train", "method=adamerging_taskwise", "rule=half", "method.schedule.steps=1", *own])
    folders = merged_in(home, "half")
    assert (folders[False] / "merged.safetensors").read_bytes() == (
        folders[True] / "merged.safetensors"
    ).read_bytes()
    assert read_results(folders[True]).rule == "half"
    assert merged_in(home, "adamerging_taskwise")[True]
    with pytest.raises(SystemExit):
        main(["merge", "rule=half", "rule.scal=1", *own])
    assert "rule.scal: Half has no such option; did you mean 'scale'?" in capsys.readouterr().err
