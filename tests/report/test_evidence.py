"""What kept predictions say in tables: intervals, bold, the matrix; and what is refused to be paired."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report.runs import write_run

from adamerge.__main__ import main
from adamerge.errors import RunError
from adamerge.report.collect import Comparison, collect
from adamerge.report.comparison import lines
from adamerge.tracking.predictions import FILE, TaskPredictions, read_predictions, write_predictions

TASKS = ("digits", "signs")
N = 400


def kept(
    root: Path,
    method: str,
    right: Mapping[str, np.ndarray],
    seed: int = 0,
    pictures: str = "p",
    shift: int = 0,
) -> Path:
    """A run whose predictions are right where `right` says so, of labels that `shift` moves."""
    folder = write_run(root, method, seed, 0.5, tasks=TASKS)
    found = {}
    content = json.loads((folder / "results.json").read_text())
    content["baselines"] = {}
    for task, own in right.items():
        labels = (np.arange(len(own)) + shift) % 10
        found[task] = TaskPredictions(
            np.where(own, labels, (labels + 1) % 10), np.full(len(own), 0.5, np.float32), labels,
            np.arange(len(own)), pictures,
        )  # fmt: skip
        content["tasks"][task] |= {"accuracy": float(own.mean()), "n": len(own)}
    (folder / "results.json").write_text(json.dumps(content))
    write_predictions(folder / FILE, found)
    return folder


def first(share: float, n: int = N) -> np.ndarray:
    return np.arange(n) < share * n


def compared(root: Path) -> Comparison:
    (comparison,) = collect([root]).comparisons
    return comparison


def marked(comparison: Comparison, column: int) -> set[str]:
    return {line.name for line in lines(comparison) if line.best[column]}


def test_bold_is_what_cannot_be_told_from_the_best(tmp_path: Path) -> None:
    """twin is better by 2 points on the very same pictures, ties by 2 on others: the first is told apart."""
    rolled = np.roll(first(0.80), 150)
    kept(tmp_path, "surgery", {"digits": first(0.80), "signs": first(0.5)})
    kept(tmp_path, "twin", {"digits": first(0.82), "signs": first(0.5)})
    kept(tmp_path, "wemoe", {"digits": rolled, "signs": first(0.5)})
    comparison = compared(tmp_path)
    assert marked(comparison, 1) == {"twin", "wemoe"}
    assert marked(comparison, 2) == {"surgery", "twin", "wemoe"}
    assert comparison.evidence.difference("twin", "surgery", 1).told_apart
    assert not comparison.evidence.difference("twin", "wemoe", 1).told_apart
    assert comparison.evidence.difference("twin", "wemoe", 1).value == pytest.approx(0.02)


def test_mcnemar_is_of_the_first_seed_that_both_have_and_pooled_over_tasks(tmp_path: Path) -> None:
    kept(tmp_path, "surgery", {"digits": first(0.1), "signs": first(0.1)}, seed=0)
    kept(tmp_path, "surgery", {"digits": first(0.50), "signs": first(0.50)}, seed=1)
    kept(tmp_path, "twin", {"digits": first(0.52), "signs": np.roll(first(0.5), 3)}, seed=1)
    pair = compared(tmp_path).evidence.pairs["twin", "surgery"]
    counts = {task: (test.only_first, test.only_second) for task, test in pair.tests.items()}
    assert counts == {"digits": (8, 0), "signs": (3, 3)}
    assert (pair.pooled.only_first, pair.pooled.only_second) == (11, 3)
    assert pair.corrected == pair.pooled.mid  # one pair


@pytest.mark.parametrize("other", [{"pictures": "q"}, {"shift": 1}, {"size": N - 1}])
def test_other_pictures_are_not_paired(
    tmp_path: Path, other: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    size = other.pop("size", N)
    kept(tmp_path, "surgery", dict.fromkeys(TASKS, first(0.8)))
    kept(tmp_path, "twin", {"digits": first(0.7, size), "signs": first(0.7)}, **other)
    main(["compare", str(tmp_path)])
    said = " ".join(capsys.readouterr().out.split())
    told = "twin and surgery were scored on other pictures or labels of task digits, or in another order: they are not"
    assert told in said
    assert list(compared(tmp_path).evidence.correct) == ["surgery"]
    assert marked(compared(tmp_path), 0) == {"surgery"}


def test_predictions_that_are_not_of_the_results_are_not_used(tmp_path: Path) -> None:
    folder = kept(tmp_path, "surgery", dict.fromkeys(TASKS, first(0.8)))
    kept(tmp_path, "twin", dict.fromkeys(TASKS, first(0.8)))
    content = json.loads((folder / "results.json").read_text())
    content["tasks"]["signs"]["accuracy"] = 0.79
    (folder / "results.json").write_text(json.dumps(content))
    evidence = compared(tmp_path).evidence
    assert list(evidence.correct) == ["twin"]
    assert any("is not of its results.json (task signs)" in line for line in evidence.refused)


def test_a_run_without_predictions_is_named_and_not_paired(tmp_path: Path) -> None:
    kept(tmp_path, "surgery", dict.fromkeys(TASKS, first(0.8)))
    kept(tmp_path, "twin", dict.fromkeys(TASKS, first(0.7)))
    (kept(tmp_path, "twin", dict.fromkeys(TASKS, first(0.7)), seed=1) / FILE).unlink()
    comparison = compared(tmp_path)
    assert "no predictions are kept of all runs of twin" in comparison.evidence.refused[0]
    assert marked(comparison, 0) == {"twin"}  # of two seeds, which is not paired with that of one


def test_what_compare_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        kept(tmp_path, "surgery", {"digits": first(0.8), "signs": first(0.6)}, seed)
        kept(tmp_path, "twin", {"digits": first(0.5), "signs": first(0.6)}, seed)
    main(["compare", str(tmp_path)])
    said = capsys.readouterr().out
    assert max(map(len, said.split("tables:")[0].splitlines())) <= 80
    (found,) = json.loads((tmp_path / "report" / "compare.json").read_text())["comparisons"]
    assert found["pictures"] == {"digits": N, "signs": N}
    surgery, twin = found["methods"]
    assert surgery["average"]["mean"] == pytest.approx(0.7)
    error = np.sqrt(0.8 * 0.2 / N + 0.6 * 0.4 / N) / 2
    assert surgery["average"]["standard_error"] == pytest.approx(error)
    assert surgery["average"]["low"] == pytest.approx(0.7 - 1.96 * error, abs=0.2 * error)
    assert surgery["average"]["best"]
    assert not twin["average"]["best"]
    assert [twin["tasks"][t]["best"] for t in TASKS] == [False, True]
    (pair,) = found["pairs"]
    assert pair["difference"]["value"] == pytest.approx(0.15)
    assert (pair["mcnemar"]["only_first"], pair["mcnemar"]["only_second"]) == (120, 0)
    with (tmp_path / "report" / "compare.csv").open() as file:
        row = next(csv.DictReader(file))
    assert (row["method"], row["task"], row["pictures"]) == ("surgery", "digits", str(N))
    assert float(row["accuracy_low"]) == surgery["tasks"]["digits"]["low"]
    assert float(row["average_standard_error"]) == pytest.approx(error)
    text = (tmp_path / "report" / "compare.md").read_text()
    assert f"Test pictures: digits {N}, signs {N}." in text
    assert "| row less column | surgery | twin |" in text
    assert "| surgery |  | +15.0 [" in text
    tex = (tmp_path / "report" / "compare.tex").read_text()
    assert r"twin & [5" in tex
    assert "$<$0.001" in tex
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Intervals and tests" in page
    assert "Every two methods" in page


def test_predictions_come_back_as_they_were_and_a_damaged_file_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    own = TaskPredictions(
        rng.integers(0, 397, 50), rng.random(50).astype(np.float32), rng.integers(-1, 397, 50),
        np.arange(0, 50, 2), "p",
    )  # fmt: skip
    unlabeled = TaskPredictions(own.predicted, own.probability, None, own.scored, "q")
    path = tmp_path / FILE
    write_predictions(path, {"a": own, "b": unlabeled})
    found = read_predictions(path)
    assert found is not None
    np.testing.assert_array_equal(found["a"].predicted, own.predicted)
    np.testing.assert_array_equal(found["a"].labels, own.labels)
    np.testing.assert_array_equal(found["a"].scored, own.scored)
    np.testing.assert_allclose(found["a"].probability, own.probability, atol=1e-3)
    np.testing.assert_array_equal(found["a"].correct, (own.predicted == own.labels)[::2])
    assert found["b"].labels is None
    assert found["a"].on == own.on != found["b"].on
    assert read_predictions(tmp_path / "none.npz") is None
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(RunError, match="is damaged"):
        read_predictions(path)
