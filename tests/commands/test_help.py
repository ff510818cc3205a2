"""`<command> --help` explains every choice and option with the words of its YAML."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from adamerge.__main__ import main
from adamerge.commands import COMMANDS
from adamerge.commands.help import ENVIRONMENT, explained, read
from adamerge.settings.paths import conf_dir

CONFIGURED = [name for name, command in COMMANDS.items() if command.config]


def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    monkeypatch.setenv("COLUMNS", "400")
    main(list(words))
    return capsys.readouterr().out


@pytest.mark.parametrize("command", CONFIGURED)
def test_every_option_stands_in_the_help_with_what_its_yaml_says(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = shown(capsys, monkeypatch, command, "--help")
    file = conf_dir() / f"{COMMANDS[command].config}.yaml"
    lines = {line.split()[0]: line for line in text.splitlines() if line.startswith("  ") and line.strip()}
    for key in yaml.safe_load(file.read_text()):
        if key not in ("defaults", "optimizer"):
            assert key in lines, key
    for option in explained(conf_dir(), command).options.values():
        assert option.comment in lines[option.name], option.name
    for example in read(file).head:
        if example.startswith("python -m"):
            assert example in text
    assert all(name in text for name in ENVIRONMENT)


@pytest.mark.parametrize("command", CONFIGURED)
def test_every_plain_option_of_a_command_has_a_comment(command: str) -> None:
    silent = [o.name for o in explained(conf_dir(), command).options.values() if not o.comment]
    assert [name for name in silent if not name.startswith("optimizer.")] == []


def test_the_options_of_a_choice_are_explained_with_those_it_is_based_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = shown(capsys, monkeypatch, "train", "method=adamerging_guided", "--help")
    assert "Options of method=adamerging_guided" in text
    line = next(line for line in text.splitlines() if "method.model.clamp" in line)
    assert "hard clamp to [0, 1]" in line
    assert "500, or suite.steps" in text
    assert "${" not in text


def test_a_yaml_of_every_form_is_read(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "defaults: [hydra_settings, _self_]\nseed: 0  # first\nlist: [1, 2]\n"
    )
    (tmp_path / "own.yaml").write_text(
        "# What it does.\n#   python -m adamerge own\ndefaults:\n  - base\n  - override method: a  # what is trained\n"
        "seed: 7  # of all\n# that is drawn\ntext: 'a # b'  # quoted\nnested:\n  deep: {a: 1}  # flow\n"
        "  none:\nlast: ???\n"
    )
    found = explained(tmp_path, "own")
    assert {name: (line.value, line.comment) for name, line in found.options.items()} == {
        "seed": ("7", "of all that is drawn"),
        "list": ("[1, 2]", ""),
        "text": ("a # b", "quoted"),
        "nested.deep": ("{a: 1}", "flow"),
        "nested.none": ("null", ""),
        "last": ("???", ""),
    }
    assert {name: (line.value, line.comment) for name, line in found.groups.items()} == {
        "method": ("a", "what is trained")
    }
    assert found.head == ["What it does.", "python -m adamerge own"]
