"""Drives the command line through the tables of user reports in this folder: one row per kind of report.

A new report is one more row in the `REPORTS` of the file that it belongs to (`identity.py`, `files.py`, ...).
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest
from reports.report import Report

from adamerge.__main__ import main

TABLES = sorted(
    p.stem for p in Path(__file__).parent.glob("*.py") if p.stem not in ("report", "test_reports", "inputs")
)
REPORTS = [report for table in TABLES for report in import_module(f"reports.{table}").REPORTS]


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: report.name)
def test_report(
    report: Report,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    code: object = 0
    try:
        main(report.words(home))
    except SystemExit as stop:
        code = stop.code or 0
    out, err = capfd.readouterr()
    said = "\n".join((out, err, caplog.text))
    assert code == report.exit, said
    for text in report.says:
        assert text in said, said
    for text in report.says_not:
        assert text not in said, said
    assert "Traceback" not in said
    if report.average is not None:
        (results,) = home.glob("outputs/*/*/*/results.json")
        assert json.loads(results.read_text())["average"] == pytest.approx(report.average, abs=1e-4)
