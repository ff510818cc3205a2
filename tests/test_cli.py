"""The command line from the outside: help, config, exit codes, what is printed and what is not imported."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import adamerge
from adamerge.__main__ import main
from adamerge.commands import COMMANDS
from adamerge.errors import RunError
from adamerge.stopping import Terminated

HEAVY = ("torch", "pytorch_lightning", "open_clip", "datasets", "matplotlib", "wandb")
ROOT = Path(adamerge.__file__).parent.parent


def python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "words", [[], ["train", "--help"], ["train", "--cfg", "job", "seed=3"], ["show", "methods"]], ids=str
)
def test_looking_imports_nothing_heavy_and_writes_nothing(tmp_path: Path, words: list[str]) -> None:
    done = python(
        "import atexit\n"
        f"atexit.register(lambda: print('imported:', [m for m in {HEAVY!r} if m in sys.modules]))\n"
        f"from adamerge.__main__ import main; main({words!r})",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported: []"
    assert list(tmp_path.iterdir()) == []


def test_mistakes_go_to_stderr_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "adamerge", "train", "sede=1", "suite=nope"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(
        "ConfigError: 2 mistakes in the config, nothing was started.\n  suite: no suite"
    )
    assert list(tmp_path.iterdir()) == []


def fails(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    with pytest.raises(SystemExit) as caught:
        main(words)
    return caught.value.code, capsys.readouterr().err


def test_usage_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    text = capsys.readouterr().out
    assert all(name in text and command.summary in text for name, command in COMMANDS.items())


@pytest.mark.parametrize("words", [["--version"], ["train", "--version"]])
def test_version(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(words)
    assert capsys.readouterr().out == f"adamerge {adamerge.__version__}\n"


def test_an_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert fails(["trian"], capsys) == (2, "ConfigError: No command 'trian'; did you mean 'train'?\n")


Install = Callable[[Callable[..., object]], list[Any]]


@pytest.fixture
def as_train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Install:
    """as_train(function): runs it in the place of `train`; returns the configs that it was given."""
    monkeypatch.chdir(tmp_path)

    def install(function: Callable[..., object]) -> list[object]:
        given: list[object] = []

        def run(cfg: object) -> object:
            given.append(cfg)
            return function(cfg)

        module = ModuleType("adamerge.commands.train")
        module.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "adamerge.commands.train", module)
        return given

    return install


def test_the_command_gets_the_composed_config(as_train: Install, tmp_path: Path) -> None:
    given = as_train(lambda cfg: None)
    main(["train", "seed=3", "--config-dir", str(tmp_path), "method.optimizer.betas=[0.8,0.9]"])
    (cfg,) = given
    assert cfg.seed == 3
    assert cfg.method.optimizer["betas"] == [0.8, 0.9]
    assert "hydra" not in cfg.model_dump()
    assert list(tmp_path.iterdir()) == []


def test_nothing_starts_where_one_job_of_a_sweep_has_a_mistake(
    as_train: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    given = as_train(lambda cfg: None)
    assert fails(["train", "-m", "seed=0,1,-1"], capsys)[0] == 2
    assert given == []


def test_an_error_of_the_job_is_one_message(as_train: Install, capsys: pytest.CaptureFixture[str]) -> None:
    def run(cfg: SimpleNamespace) -> None:
        raise RunError("The disk is full.\n  Make room.")

    as_train(run)
    assert fails(["train"], capsys) == (2, "RunError: The disk is full.\n  Make room.\n")


def test_an_error_of_the_program_keeps_its_traceback(as_train: Install) -> None:
    as_train(lambda cfg: cfg.nothing_of_the_kind)
    with pytest.raises(Exception, match="nothing_of_the_kind") as caught:
        main(["train"])
    assert not isinstance(caught.value, SystemExit | RunError)


def test_a_failing_job_does_not_stop_the_sweep(
    as_train: Install, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def run(cfg: SimpleNamespace) -> None:
        if cfg.seed < 2:
            raise RunError(f"seed {cfg.seed} failed")

    given = as_train(run)
    code, text = fails(["train", "-m", "seed=0,1,2", f"outputs={tmp_path}/o"], capsys)
    assert code == 2
    assert [cfg.seed for cfg in given] == [0, 1, 2]
    assert "RunError: seed 0 failed\n" in text
    assert "RunError: seed 1 failed\n" in text
    assert text.endswith("RunError: 2 jobs of the sweep failed; the reasons stand above.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["o"]


def ctrl_c(cfg: object) -> None:
    raise KeyboardInterrupt


def ctrl_c_in_lightning(cfg: object) -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        sys.exit(1)


@pytest.mark.parametrize("stop", [ctrl_c, ctrl_c_in_lightning])
def test_ctrl_c_is_one_line(
    as_train: Install, capsys: pytest.CaptureFixture[str], stop: Callable[..., None]
) -> None:
    as_train(stop)
    assert fails(["train"], capsys) == (130, "Interrupted.\n")


def test_sigterm_stops_the_command_and_is_no_success(
    as_train: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(cfg: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    as_train(run)
    assert fails(["train"], capsys) == (143, "Terminated by SIGTERM.\n")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_sigterm_stops_a_sweep(as_train: Install, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def run(cfg: SimpleNamespace) -> None:
        if cfg.seed == 1:
            signal.raise_signal(signal.SIGTERM)

    given = as_train(run)
    assert fails(["train", "-m", "seed=0,1,2", f"outputs={tmp_path}/o"], capsys)[0] == 143
    assert [cfg.seed for cfg in given] == [0, 1]


def test_what_breaks_after_sigterm_is_no_error_of_its_own(
    as_train: Install, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A loader's worker gets the signal as well, and torch tells of its death by an error."""

    def run(cfg: object) -> None:
        with suppress(Terminated):
            signal.raise_signal(signal.SIGTERM)
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated.")

    given = as_train(run)
    assert fails(["train"], capsys) == (143, "Terminated by SIGTERM.\n")
    assert fails(["train", "-m", "seed=0,1", f"outputs={tmp_path}/o"], capsys)[0] == 143
    assert len(given) == 2


def test_what_the_system_refuses_is_a_message(as_train: Install, capsys: pytest.CaptureFixture[str]) -> None:
    def run(cfg: object) -> None:
        Path("/dev/null/below").mkdir()

    as_train(run)
    code, text = fails(["train"], capsys)
    assert (code, text.splitlines()[0]) == (2, "RunError: /dev/null/below: Not a directory.")


def test_a_plain_word_is_the_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    main(["bench", "adamerging", "--cfg", "job", "--package", "name"])
    assert capsys.readouterr().out == "adamerging\n"


def test_a_pickle_is_not_rerun(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = fails(["train", "--experimental-rerun", "job.pickle"], capsys)
    assert (code, "pickle" in text) == (2, True)


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("adamerge tr", "train"),
        ("adamerge train method=adamerging_taskwise_p", "method=adamerging_taskwise_pp"),
        ("adamerge train see", "seed="),
        ("adamerge convert x", ""),
    ],
)
def test_tab_completes_commands_and_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, answer: str
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    main(["-sc", "query=bash"])
    assert capsys.readouterr().out.strip() == answer
