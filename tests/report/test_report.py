"""Tables and pictures from plain data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tracking.test_tracking import example

from adamerge.report import figures
from adamerge.report.figures import write_figures
from adamerge.report.names import memory, percent, seconds
from adamerge.report.table import results_table, to_markdown
from adamerge.tracking.journal import Journal
from adamerge.tracking.results import Reference, TaskResult


def text(results: Any, width: int = 80) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(results_table(results))
    return console.export_text()


def test_the_table_fits_eighty_columns_and_holds_the_numbers() -> None:
    names = ("pretrained", "weight_average", "task_arithmetic", "individual")
    baselines = {n: Reference({"signs": 0.4, "digits": 0.2}, {"signs": 0.5, "digits": 0.5}) for n in names}
    shown = text(example(baselines=baselines))
    assert max(map(len, shown.splitlines())) <= 80
    for part in ("trained", "arithmetic", "This", "vidual", "80.0", "70.0", "62.5", "1.00 GiB"):
        assert part in shown
    average = next(line for line in shown.splitlines() if "average" in line and "70.0" in line)
    assert "30.0" in average


def test_without_labels_dashes_and_the_agreement() -> None:
    tasks = {"birds": TaskResult(None, 10, None, None, None, 0.9)}
    shown = text(example(tasks=tasks, baselines={}))
    assert "–" in shown
    assert "90.0" in shown


def test_markdown() -> None:
    lines = to_markdown(example()).splitlines()
    assert lines[0].startswith("| task | Pre-trained | adamerging_layerwise |")
    assert lines[-1] == "| **average** | 30.0 | 70.0 | 62.5 |"


@pytest.mark.parametrize("rows", [1, 40])
def test_figures_are_written_for_what_there_is(tmp_path: Path, rows: int) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    for step in range(30):
        journal.append({"step": step, "loss": 2.0, "loss/signs": 1.0, "loss/digits": 1.0})
    layers = [f"visual.transformer.resblocks.{i // 12}.w{i}" for i in range(rows)] if rows > 1 else ["all"]
    values = np.linspace(-0.1, 0.6, 2 * rows).reshape(rows, 2).tolist()
    table = {"layers": layers, "tasks": ["signs", "digits"], "values": values}
    (tmp_path / "coefficients.json").write_text(json.dumps(table))
    paths = write_figures(tmp_path, example())
    assert [p.name for p in paths] == ["loss.png", "coefficients.png", "accuracy.png"]
    for path in paths:
        pixels = np.asarray(Image.open(path).convert("L"))
        assert pixels.shape[1] > 900
        assert (pixels < 250).mean() > 0.005  # something is drawn


@pytest.fixture
def axes_of(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """The axes of every picture that is saved, by the file's name."""
    drawn: dict[str, list[Any]] = {}
    save = figures._save

    def keep(draw: Any, path: Path, size: Any) -> Path:
        def noted(figure: Any) -> None:
            draw(figure)
            drawn[path.name] = figure.axes

        return save(noted, path, size)

    monkeypatch.setattr(figures, "_save", keep)
    return drawn


@pytest.mark.parametrize("name", ["entropy (nats)", "distance to the expert (mean absolute difference)"])
def test_the_loss_is_called_what_the_run_minimised(tmp_path: Path, axes_of: Any, name: str) -> None:
    Journal(tmp_path / "journal.jsonl").append({"step": 0, "loss": 1.0, "loss/signs": 1.0})
    write_figures(tmp_path, example(objective=name))
    assert axes_of["loss.png"][0].get_ylabel() == f"{name}, summed over a step's batches"
    assert axes_of["loss.png"][0].get_xlabel() == "step"


def test_a_step_without_a_loss_is_a_gap_and_no_zero(tmp_path: Path, axes_of: Any) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append({"step": 0, "loss": 1.0, "loss/digits": 1.0})
    journal.append({"step": 1, "loss": 3.0, "loss/digits": None, "loss/signs": 3.0})
    journal.append({"step": 2, "loss": 4.0, "loss/digits": 1.0, "loss/signs": 3.0})
    write_figures(tmp_path, example(objective="o"))
    digits, mean, signs, _ = (line.get_ydata() for line in axes_of["loss.png"][0].lines)
    np.testing.assert_equal(digits, [1.0, np.nan, 1.0])
    np.testing.assert_allclose(mean, 1.0)
    np.testing.assert_equal(signs, [np.nan, 3.0, 3.0])


def test_an_unknown_accuracy_has_no_bar(tmp_path: Path, axes_of: Any) -> None:
    tasks = {
        "signs": TaskResult(0.8, 10, None, None, None, 0.9),
        "birds": TaskResult(None, 10, None, None, None, 0.9),
    }
    write_figures(tmp_path, example(tasks=tasks, baselines={}))
    heights = [bar.get_height() for bar in axes_of["accuracy.png"][0].patches]
    np.testing.assert_equal(heights, [80.0, np.nan, np.nan])


def test_numbers_for_people() -> None:
    assert percent(0.1234) == "12.3"
    assert percent(None) == "–"
    assert seconds(3.21) == "3.2 s"
    assert seconds(600) == "10.0 min"
    assert memory(5 * 2**20) == "5 MiB"
