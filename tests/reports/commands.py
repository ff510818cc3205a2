"""Reports of commands that went wrong as a whole: exit codes, options, outputs."""

from __future__ import annotations

import shutil
from pathlib import Path

from reports.inputs import digit_folders, on_folders
from reports.report import EXPERTS, Report

from adamerge.__main__ import main


def _with_config(home: Path, text: str) -> list[str]:
    (home / "run").mkdir()
    (home / "run/config.yaml").write_text(text)
    return ["evaluate", "run=run"]


def _evicted(words: list[str], home: Path) -> list[str]:
    (figures,) = home.glob("outputs/*/*/*/figures")
    shutil.rmtree(figures)
    figures.write_text("x")
    return words


def _own(home: Path, name: str, text: str) -> str:
    path = home / "own" / f"{name}.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return f"--config-dir={home / 'own'}"


QUICK = ("suite.tasks=[digits]", "trainer=cpu", "trainer.enable_progress_bar=false")


def _file(home: Path, name: str) -> Path:
    (home / name).write_text("x")
    return home / name


def _stopped(home: Path, name: str, content: bytes) -> list[str]:
    """A training whose run folder has a damaged file, as if it had been stopped; the same command again."""
    words = ["train", "method=adamerging_taskwise", "method.schedule.steps=1", *QUICK]
    main(words)
    (results,) = home.glob("outputs/*/*/*/results.json")
    results.unlink()
    (results.parent / name).write_bytes(content)
    return words


def _finished(home: Path) -> Path:
    main(["merge", *QUICK])
    (results,) = home.glob("outputs/*/*/*/results.json")
    return results.parent


REPORTS = [
    Report(
        "outputs is a file",
        lambda home: ["merge", *QUICK, f"outputs={_file(home, 'afile')}"],
        says=("outputs: the run folder", "cannot be written: Not a directory."),
    ),
    Report(
        "outputs cannot be written",
        lambda home: ["merge", *QUICK, "outputs=/proc/adamerge"],
        says=("outputs: the run folder /proc/adamerge/mini", "cannot be written: "),
    ),
    Report(
        "a learning rate beyond float32",
        lambda home: [
            *("train", "method=adamerging_taskwise", *QUICK),
            *("method.schedule.steps=2", "method.optimizer.lr=1e38"),
        ],
        says=("The update of step 0 with lr=1e+38 cannot be taken", "Lower the optimizer's lr"),
    ),
    Report(
        "a precision that there is not",
        lambda home: ["train", *QUICK, "trainer.precision=17"],
        says=("trainer: Precision 17 is invalid.",),
    ),
    Report(
        "a checkpoint to resume from is cut off",
        lambda home: _stopped(home, "checkpoints/last.ckpt", b"PK\x03\x04"),
        says=("Cannot resume from", "it is damaged.\n  Delete it to start this run afresh."),
    ),
    Report(
        "a picture folder of a run is a file",
        lambda home: _evicted(_stopped(home, "error.txt", b""), home),
        says=("figures cannot be written: File exists.",),
    ),
    Report(
        "an export where nothing can be written",
        lambda home: ["export", f"run={_finished(home)}", "out=/proc/exported"],
        says=("/proc/exported cannot be written: ",),
    ),
    Report(
        "a conversion where nothing can be written",
        lambda home: ["convert", str(EXPERTS / "digits.safetensors"), "--out", "/proc/a.safetensors"],
        says=("/proc/a.safetensors cannot be written: ",),
    ),
    Report(
        "a conversion into a folder's name",
        lambda home: ["convert", str(EXPERTS / "digits.safetensors"), "--out", str(home)],
        says=("is a folder; name a file.",),
    ),
    Report(
        "a run folder whose config is no YAML",
        lambda home: _with_config(home, "a: [1"),
        says=("config.yaml cannot be read: while parsing",),
    ),
    Report(
        "a run folder whose config is another's",
        lambda home: _with_config(home, "seed: 3"),
        says=("holds no run of train or merge: its config.yaml has no suite, backbone,",),
    ),
    Report(
        "a method's YAML with misspelt keys would train by another loop, without labels",
        lambda home: [
            "train",
            _own(
                home,
                "method/mine",
                "defaults: [supermerge, _self_]\nname: mine\nlables: 9\n"
                "traning: {_target_: adamerge.methods.frank_wolfe.HardSteps}\n",
            ),
            "method=mine",
        ],
        says=("method.traning: no such option; did you mean 'training'", "did you mean 'labels'?"),
    ),
    Report(
        "task arithmetic on class folders",
        lambda home: ["merge", *on_folders(digit_folders(home / "data", 5), "suite.prior=1.0")],
        exit=0,
        average=0.94,
    ),
]
