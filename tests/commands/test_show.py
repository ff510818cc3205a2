"""`show` reads the YAMLs only."""

from __future__ import annotations

import pytest

from adamerge.commands.show import run
from adamerge.errors import ConfigError
from adamerge.settings.groups import method_names
from adamerge.settings.paths import conf_dir


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "600")


@pytest.mark.parametrize("word", ["methods", "method"])
def test_a_group_is_listed_by_either_number(capsys: pytest.CaptureFixture[str], word: str) -> None:
    run([word])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "summary", "needs", "trains", "memory", "paper"]
    assert [line.split()[0] for line in lines[1:]] == method_names()


def test_a_rule_among_the_methods_says_what_the_rule_says(capsys: pytest.CaptureFixture[str]) -> None:
    run(["methods"])
    (line,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith("emr "))
    assert "NeurIPS 2024" in line
    assert "nothing; task id at inference" in line
    run(["method/ties"])
    shown = capsys.readouterr().out
    assert shown.startswith("# method=static rule=ties")
    assert shown.endswith((conf_dir() / "rule" / "ties.yaml").read_text())


def test_what_a_method_inherits_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    run(["methods"])
    (line,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith("adamerging_layerwise_pp "))
    assert "after TIES" in line
    assert "unlabeled images" in line
    assert "ICLR 2024" in line


def test_a_narrow_terminal_gets_a_few_lines_per_method(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    run(["methods"])
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("surgery "))
    entry = [line.split()[0] for line in lines[start + 1 : start + 8]]
    assert {"needs", "trains", "memory", "paper"} <= set(entry)
    assert max(map(len, lines)) <= 80


def test_a_suite_is_listed_with_its_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    run(["suites"])
    (line,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith("mini "))
    assert "digits, street_numbers, signs" in line


def test_a_yaml_is_printed_as_it_is_where_it_is_piped(capsys: pytest.CaptureFixture[str]) -> None:
    run(["method/adamerging_layerwise"])
    assert capsys.readouterr().out == (conf_dir() / "method" / "adamerging_layerwise.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["meths"], "no 'meths' to show; did you mean 'methods'"),
        (["qqq"], "no 'qqq' to show; there is attacks, backbones, catalogues, checkpoints, "),
        (["rule/tis"], "no rule 'tis'; did you mean 'ties'"),
        (["rule/../train"], "no rule '../train'"),
        ([], "show takes one of attacks, backbones, "),
        (["methods", "rules"], "show takes one of attacks, backbones, "),
    ],
)
def test_an_unknown_word_names_the_near_ones(words: list[str], text: str) -> None:
    with pytest.raises(ConfigError, match=text.replace("/", ".")):
        run(words)
