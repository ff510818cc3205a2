"""The notebooks run from top to bottom in an empty folder, and are kept without outputs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_there_are_the_four() -> None:
    assert [path.stem for path in NOTEBOOKS] == [
        "adding_a_method", "comparing_methods", "own_models", "quickstart",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_is_stripped(
    path: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cells = [
        cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"
    ]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)
    code = "\n\n".join("".join(cell["source"]) for cell in cells)
    (tmp_path / "notebook.py").write_text(code, encoding="utf-8")
    cache = tmp_path_factory.getbasetemp() / "notebook-cache"  # shared: references are made once
    environment = {
        **os.environ,
        "MPLBACKEND": "Agg",
        "ADAMERGE_CACHE": str(cache),
        "PYTHONWARNINGS": "ignore",
    }
    environment.pop("ADAMERGE_OUTPUTS", None)
    done = subprocess.run(
        [sys.executable, "notebook.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert list(tmp_path.glob("outputs/*/*/*/results.json"))
