"""Reports of commands that went wrong as a whole: exit codes, options, outputs."""

from __future__ import annotations

from pathlib import Path

from reports.inputs import digit_folders, on_folders
from reports.report import Report


def _own(home: Path, name: str, text: str) -> str:
    path = home / "own" / f"{name}.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return f"--config-dir={home / 'own'}"


REPORTS = [
    Report(
        "a method's YAML with misspelt keys would train by another loop, without labels",
        lambda home: [
            "train",
            _own(
                home,
                "method/mine",
                "defaults: [supermerge, _self_]\nname: mine\nlables: 9\n"
                "traning: {_target_: adamerge.training.HardSteps}\n",
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
