"""The table and the picture of rules are those of the runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report.runs import write_run

from adamerge.report.rules_page import main


def test_rules_by_accuracy_with_what_they_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, accuracy, seconds in (("ties", 0.5, 3.0), ("tsv_m", 0.7, 8.0), ("individual", 0.9, 1.0)):
        file = write_run(tmp_path / "runs", name, accuracy=accuracy, tasks=("digits",)) / "results.json"
        told = {"seconds": {"prepare": seconds}, "peak_memory_bytes": 2**30, "bytes": 3 << 20}
        file.write_text(json.dumps(json.loads(file.read_text()) | told))
    main([str(tmp_path / "runs"), str(tmp_path / "docs" / "rules.svg")])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows[2:]] == ["`individual`", "`tsv_m`", "`ties`"]
    assert (rows[3][1], *rows[3][3:]) == ("70.0", "8", "1.00 GiB", "3 MiB")
    drawn = (tmp_path / "docs" / "rules.svg").read_text()
    assert "<!-- ties -->" in drawn
    assert "<!-- tsv_m -->" in drawn
    assert "<!-- individual -->" not in drawn
