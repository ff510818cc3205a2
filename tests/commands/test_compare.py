"""compare: means and spreads by hand, nothing dropped in silence, no torch."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from adamerge.__main__ import main
from adamerge.report.collect import collect

BASELINES = {
    name: {"accuracy": {"digits": value, "signs": value}, "agreement": {"digits": 0.5, "signs": 0.5}}
    for name, value in (("pretrained", 0.3), ("weight_average", 0.6), ("individual", 0.9))
}


def make_run(
    root: Path, method: str, seed: int, digits: float, signs: float, suite: str = "mini", **model: Any
) -> Path:
    folder = root / method / f"{seed}-{len(list(root.rglob('config.yaml')))}"
    folder.mkdir(parents=True)
    config = {
        "seed": seed,
        "method": {"name": method, "model": model, "summary": f"words {seed}"},
        "rule": {"name": "none"},
        "suite": {"name": suite},
        "backbone": {"name": "small"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    tasks = {
        name: {
            "accuracy": a,
            "n": 10,
            "expert": 0.9,
            "pretrained": 0.3,
            "normalized": a / 0.9,
            "agreement": a,
        }
        for name, a in (("digits", digits), ("signs", signs))
    }
    results = {
        "schema": 1, "run_id": "x", "command": "train", "method": method, "rule": "none", "suite": suite,
        "backbone": "small", "seed": seed, "steps": 5, "trainable_parameters": 12, "versions": {}, "device": "cpu",
        "seconds": {"prepare": 1.0, "adapt": 2.0 + seed, "evaluate": 3.0}, "peak_memory_bytes": 2**30,
        "tasks": tasks, "baselines": BASELINES,
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(results))
    return folder


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    root = tmp_path / "outputs"
    for seed, (digits, signs) in enumerate(((0.7, 0.5), (0.8, 0.6), (0.9, 0.7))):
        make_run(root, "surgery", seed, digits, signs, rank=16)
    make_run(root, "surgery", 0, 0.6, 0.6, rank=4)
    make_run(root, "wemoe", 0, 0.95, 0.55)
    return root


def test_means_and_spreads_are_those_computed_by_hand(sweep: Any, capsys: pytest.CaptureFixture[str]) -> None:
    main(["compare", str(sweep)])
    out = capsys.readouterr().out
    assert "70.0 ± 10.0" in out  # of 0.6, 0.7, 0.8
    assert "surgery (rank=16)" in out
    assert "surgery (rank=4)" in out
    lines = (sweep / "report" / "compare.md").read_text().splitlines()
    assert lines[2] == "| method | average | digits | signs |"
    rows = {line.split("|")[1].strip(): line for line in lines[4:] if line.startswith("|")}
    assert list(rows) == [
        "Pre-trained", "Weight average", "Individual", "wemoe", "surgery (rank=16)", "surgery (rank=4)",
    ]  # fmt: skip
    # One seed against three: not among the best.
    assert rows["wemoe"] == "| wemoe | 75.0 | 95.0 | 55.0 |"
    best = "| surgery (rank=16) | **70.0 ± 10.0** | **80.0 ± 10.0** | **60.0 ± 10.0** |"
    assert rows["surgery (rank=16)"] == best
    assert (
        rows["Individual"] == "| Individual | 90.0 | 90.0 | 90.0 |"
    )  # the upper reference is never the best


def test_equal_bests_are_all_marked(sweep: Any) -> None:
    main(["compare", str(sweep)])
    text = (sweep / "report" / "compare.md").read_text()
    for row in (
        "| Weight average | 60.0 | 60.0 | **60.0** |",
        "| surgery (rank=16) | **70.0 ± 10.0** | **80.0 ± 10.0** | **60.0 ± 10.0** |",
    ):
        assert row in text


def test_csv_has_plain_numbers(sweep: Any) -> None:
    main(["compare", str(sweep), f"out={sweep / 'elsewhere'}"])
    with (sweep / "elsewhere" / "compare.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == "surgery (rank=16)"]
    assert [row["task"] for row in rows] == ["digits", "signs"]
    assert float(rows[0]["accuracy"]) == pytest.approx(0.8)
    assert float(rows[0]["accuracy_sd"]) == pytest.approx(0.1)
    assert float(rows[0]["average_sd"]) == pytest.approx(0.1)
    assert float(rows[0]["adapt_seconds"]) == pytest.approx(3.0)
    assert rows[0]["seeds"] == "0 1 2"


def test_latex_is_a_booktabs_table(sweep: Any) -> None:
    main(["compare", str(sweep)])
    text = (sweep / "report" / "compare.tex").read_text()
    assert text.startswith(r"\begin{tabular}{lrrr}" + "\n" + r"\toprule")
    assert r"wemoe & 75.0 & 95.0 & 55.0 \\" in text
    assert r"\textbf{70.0 {\tiny$\pm$10.0}}" in text


def test_suites_have_tables_of_their_own_and_unfinished_runs_are_named(
    sweep: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(sweep, "wemoe", 0, 0.2, 0.2, suite="mini, jpeg 2")
    (make_run(sweep, "ties", 0, 0.5, 0.5) / "results.json").unlink()
    (make_run(sweep, "dam", 0, 0.5, 0.5) / "results.json").write_text("{")
    main(["compare", str(sweep)])
    out = capsys.readouterr().out
    assert "mini, jpeg 2, small, 2 tasks" in out
    left = [line for line in out.splitlines() if line.startswith("left out")]
    assert len(left) == 2
    assert any("ties" in line and "not finished" in line for line in left)
    assert any("dam" in line and "damaged" in line for line in left)
    assert "ties" not in (sweep / "report" / "compare.md").read_text()


def test_runs_without_labels_are_compared_by_agreement(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(tmp_path, "surgery", 0, 0.5, 0.5)
    content = json.loads((folder / "results.json").read_text())
    for task in content["tasks"].values():
        task.update(accuracy=None, expert=None, normalized=None)
    (folder / "results.json").write_text(json.dumps(content))
    main(["compare", str(tmp_path)])
    (line,) = (x for x in capsys.readouterr().out.splitlines() if x.strip().startswith("surgery"))
    assert "–" in line
    assert "50.0" in line


@pytest.mark.parametrize("words", [[], ["nowhere"], ["rank=3"]])
def test_wrong_words_are_explained(
    words: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["compare", *words])
    assert stop.value.code == 2
    assert "folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_without_runs_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["compare", str(tmp_path)])
    assert "no run" in capsys.readouterr().err


def test_it_needs_no_torch(sweep: Any) -> None:
    code = (
        "import sys; from adamerge.__main__ import main; main(sys.argv[1:]);"
        "sys.exit(any(m in sys.modules for m in ('torch', 'pytorch_lightning', 'hydra')))"
    )
    subprocess.run([sys.executable, "-c", code, "compare", str(sweep)], check=True)


def test_pick_chooses_by_the_estimate_and_says_what_it_cannot_tell_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "outputs"
    # The accuracies are the other way round: no label is looked at.
    for method, accuracy, value, low, high in (
        ("surgery", 0.5, 0.8, 0.7, 0.9),
        ("wemoe", 0.9, 0.75, 0.6, 0.85),
        ("ties", 0.95, 0.5, 0.4, 0.6),
    ):
        folder = make_run(root, method, 0, accuracy, accuracy)
        content = json.loads((folder / "results.json").read_text())
        for task in content["tasks"].values():
            task |= {"estimate": value, "estimate_low": low, "estimate_high": high, "entropy": 0.3}
        (folder / "results.json").write_text(json.dumps(content))
    make_run(root, "older", 0, 1.0, 1.0)
    main(["compare", str(root), "--pick"])
    out = capsys.readouterr().out
    assert "pick: surgery, estimated accuracy 80.0; not told apart from it: wemoe\n" in out
    assert "70.0 to 90.0" in out


def named(root: Path) -> list[str]:
    """The rows' names, best first."""
    (comparison,) = collect([root]).comparisons
    return [group.name for group in comparison.groups]


def test_variants_are_named_by_what_tells_them_apart(tmp_path: Path) -> None:
    """A setting that goes with another is left out; two of one last word are told by one word more."""
    make_run(tmp_path, "surgery", 0, 0.9, 0.9, rank=16, initialisation="a rather long word")
    make_run(tmp_path, "surgery", 0, 0.8, 0.8, rank=4, initialisation="another one as long")
    assert named(tmp_path) == ["surgery (rank=16)", "surgery (rank=4)"]
    for index, (own, other) in enumerate(((1, 1), (1, 2), (2, 1))):
        make_run(tmp_path / "more", "twin", 0, 0.9 - index / 10, 0.5, a={"lr": own}, b={"lr": other})
    assert named(tmp_path / "more") == [
        "twin (a.lr=1, b.lr=1)",
        "twin (a.lr=1, b.lr=2)",
        "twin (a.lr=2, b.lr=1)",
    ]


def test_a_name_of_ones_own_is_the_row_s(tmp_path: Path) -> None:
    for seed in (0, 1):
        folder = make_run(tmp_path, "surgery", seed, 0.9, 0.9, rank=16)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        (folder / "config.yaml").write_text(yaml.safe_dump(config | {"name": "Surgery, rank as published"}))
    make_run(tmp_path, "surgery", 0, 0.8, 0.8, rank=4)
    assert named(tmp_path) == ["Surgery, rank as published", "surgery"]


def test_the_tables_fit_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for rank in (1, 2):
        folder = make_run(
            tmp_path, "adamerging_layerwise_pp_over_something", rank, 0.5, 0.5, unusually_long=rank
        )
        content = json.loads((folder / "results.json").read_text())
        for task in content["tasks"].values():
            task |= {"estimate": 0.8, "estimate_low": 0.7, "estimate_high": 0.9, "entropy": 0.3}
        (folder / "results.json").write_text(json.dumps(content))
    main(["compare", str(tmp_path), "--pick"])
    out = capsys.readouterr().out
    tables = [
        line for line in out.splitlines() if not line.startswith(("pick:", "tables:", "page:", "intervals"))
    ]
    assert max(map(len, tables)) <= 80
    words = "".join(out.split())
    assert words.count("(unusually_long=1)") >= 2  # whole, in both tables
