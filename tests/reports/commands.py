"""Reports of commands that went wrong as a whole: exit codes, options, outputs."""

from __future__ import annotations

from reports.inputs import digit_folders, on_folders
from reports.report import Report

REPORTS = [
    Report(
        "task arithmetic on class folders",
        lambda home: ["merge", *on_folders(digit_folders(home / "data", 5), "suite.prior=1.0")],
        exit=0,
        average=0.94,
    ),
]
