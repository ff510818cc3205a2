"""What made a run folder, as its record says; and that nothing depends on it."""

from __future__ import annotations

import json
import os
import platform
import shlex
import socket
import subprocess
from datetime import datetime
from pathlib import Path

import pytest

from adamerge.errors import RunError
from adamerge.tracking import provenance
from adamerge.tracking.provenance import Checkout, begin, checkout_of, ending, read_sittings


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A git command that runs the tests as a hook names its own repository."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)


def git(folder: Path, *words: str) -> str:
    own = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(("git", *own, *words), cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package in a checkout, committed."""
    package = tmp_path / "code" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("x = 1\n")
    (package.parent / ".gitignore").write_text("__pycache__\n")
    git(package.parent, "init", "-q")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-qm", "first")
    return package


def test_the_commit_and_whether_the_code_is_it(package: Path) -> None:
    commit = git(package, "rev-parse", "HEAD")
    conf = package.parent / "conf"
    assert checkout_of(package, conf) == Checkout(commit, False)
    (package / "__pycache__").mkdir()
    (package / "__pycache__/x.pyc").write_text("")
    (package.parent / "outputs").mkdir()
    (package.parent / "outputs/x").write_text("")
    assert checkout_of(package, conf) == Checkout(commit, False)  # neither is code
    conf.mkdir()
    (conf / "mine.yaml").write_text("")
    assert checkout_of(package, conf) == Checkout(commit, True)
    (conf / "mine.yaml").unlink()
    (package / "__init__.py").write_text("x = 2\n")
    assert checkout_of(package, conf) == Checkout(commit, True)


def test_a_repository_around_an_installed_package_is_not_its_checkout(package: Path) -> None:
    installed = package.parent / "venv" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert checkout_of(installed) is None


def test_without_a_repository_or_git_there_is_none(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checkout_of(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert checkout_of(package) is None


def test_a_hook_s_environment_names_no_other_repository(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other"))
    assert checkout_of(package) is not None


def test_a_sitting_says_who_when_and_with_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["adamerge train", "method=ties", "suite.data=my data"])
    before = datetime.now().astimezone().replace(microsecond=0)
    with ending(tmp_path):
        begin(tmp_path)
        (open_one,) = read_sittings(tmp_path)
        assert open_one.ended is None
        assert open_one.outcome is None
    (sitting,) = read_sittings(tmp_path)
    assert sitting.command is not None
    assert shlex.split(sitting.command) == ["adamerge", "train", "method=ties", "suite.data=my data"]
    assert (sitting.host, sitting.process) == (socket.gethostname(), os.getpid())
    assert sitting.python == platform.python_version()
    assert {"adamerge", "torch", "numpy", "safetensors"} <= set(sitting.packages)
    assert sitting.ended is not None
    assert before <= datetime.fromisoformat(sitting.started) <= datetime.fromisoformat(sitting.ended)
    assert datetime.fromisoformat(sitting.started).tzinfo is not None
    assert sitting.outcome == "finished"


def test_another_program_s_words_are_not_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["loky.worker", "--pipe", "3"])
    begin(tmp_path)
    assert read_sittings(tmp_path)[0].command is None


def test_a_run_that_goes_on_has_two_sittings_and_a_killed_one_no_end(tmp_path: Path) -> None:
    begin(tmp_path)  # killed: nothing notes an end
    content = json.loads((tmp_path / provenance.FILE).read_text())
    content["sittings"][0]["process"] += 1
    (tmp_path / provenance.FILE).write_text(json.dumps(content))
    with ending(tmp_path):
        pass  # a process that only looked
    assert [one.outcome for one in read_sittings(tmp_path)] == [None]
    with pytest.raises(KeyboardInterrupt), ending(tmp_path):
        begin(tmp_path)
        raise KeyboardInterrupt
    with pytest.raises(RunError, match="mine"), ending(tmp_path):
        begin(tmp_path)
        raise RunError("mine")
    outcomes = [one.outcome for one in read_sittings(tmp_path)]
    assert outcomes == [None, "KeyboardInterrupt", "RunError"]


def test_a_damaged_note_stops_nothing(tmp_path: Path) -> None:
    for text in ("{", "[]", '{"sittings": [{"a": 1}]}', '{"sittings": [1]}'):
        (tmp_path / provenance.FILE).write_text(text)
        assert read_sittings(tmp_path) == []
    begin(tmp_path)
    assert len(read_sittings(tmp_path)) == 1
