"""Published numbers: the data agree with themselves, and runs are judged by their own family only."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from adamerge.__main__ import main
from adamerge.report.published import Published, every_row, published
from adamerge.settings import conf_dir
from adamerge.tracking.results import Results, TaskResult

EIGHT = ("sun397", "stanford_cars", "resisc45", "eurosat", "svhn", "gtsrb", "mnist", "dtd")
METHODS = {path.stem for path in (conf_dir() / "method").glob("*.yaml")}
RULES = {path.stem for path in (conf_dir() / "rule").glob("*.yaml")}


@pytest.mark.parametrize(("table", "row"), every_row())
def test_every_row_agrees_with_itself(table: dict[str, Any], row: Published) -> None:
    assert row.method in METHODS
    assert row.over is None or row.over in METHODS | RULES
    assert 0 < row.tolerance <= 0.005
    assert row.source
    if row.tasks is not None:
        assert tuple(row.tasks) == tuple(table["tasks"])
        # Every number is rounded to a tenth of a point, the average too.
        assert abs(sum(row.tasks.values()) / len(row.tasks) - row.average) < 0.0011


def test_no_method_stands_twice_in_a_table() -> None:
    seen = [(id(table), row.method, row.over) for table, row in every_row()]
    assert len(seen) == len(set(seen))


def results(method: str, average: float, rule: str = "none", suite: str = "eight") -> Results:
    result = TaskResult(
        accuracy=average, n=1, expert=1.0, pretrained=0.0, normalized=average, agreement=average
    )
    return Results(
        run_id="x", command="train", method=method, rule=rule, suite=suite, backbone="vit_b_32", seed=0, steps=1,
        trainable_parameters=1, seconds={"adapt": 1.0}, peak_memory_bytes=1, tasks=dict.fromkeys(EIGHT, result),
        versions={}, device="cpu",
    )  # fmt: skip


def found(
    family: str, method: str, rule: str = "none", start: str | None = None, suite: str = "eight"
) -> Any:
    return published(results(method, 0.8, rule, suite), {"checkpoints.name": family, "start": start})


def test_a_run_is_compared_with_its_own_family_only() -> None:
    assert found("task_vectors", "adamerging_layerwise").average == pytest.approx(0.8018)
    assert found("fusion_bench", "adamerging_layerwise_fb").average == pytest.approx(0.826)
    assert found("fusion_bench", "adamerging_layerwise").confirmed is False  # another schedule
    assert found("mini", "adamerging_layerwise") is None
    assert found("task_vectors", "adamerging_layerwise", suite="eight, validation") is None


def test_what_lies_below_the_method_counts() -> None:
    assert found("task_vectors", "surgery").average == pytest.approx(0.8091)
    assert found("task_vectors", "surgery", rule="ties").average == pytest.approx(0.8318)
    started = found("task_vectors", "surgery", start="outputs/eight/adamerging_layerwise/0123")
    assert started.average == pytest.approx(0.8610)
    assert found("task_vectors", "surgery", start="tables/lw_adamerging-ViT-B-32.json") == started
    assert found("task_vectors", "surgery", start="outputs/eight/adamerging_layerwise_pp/0123") is None
    assert found("task_vectors", "adamerging_layerwise_pp", rule="ties").average == pytest.approx(0.8115)
    assert found("task_vectors", "adamerging_layerwise", rule="ties") is None


def test_published_coefficients_are_judged_by_the_run_that_they_come_from() -> None:
    table = "tables/lw_adamerging-ViT-B-32.json"
    assert found("task_vectors", "none", start=table) == found("task_vectors", "adamerging_layerwise")
    pp = found("task_vectors", "ties", rule="ties", start="tables/lw_adamergingpp-ViT-B-32.json")
    assert pp == found("task_vectors", "adamerging_layerwise_pp", rule="ties")
    assert found("task_vectors", "none", start="mine.json") is None


def test_the_verdict_includes_the_edge_and_leaves_out_what_is_not_confirmed() -> None:
    known = Published("m", average=0.801, tolerance=0.005, source="s")
    assert [known.verdict(x) for x in (0.796, 0.806, 0.7959, 0.8061, None)] == [
        "within", "within", "below", "above", "not judged",
    ]  # fmt: skip
    assert Published("m", 0.8, 0.005, "s", confirmed=False).verdict(0.8) == "not judged"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    from dataclasses import asdict

    for seed, average in enumerate((0.79, 0.80)):
        folder = tmp_path / "eight" / "adamerging_layerwise" / str(seed)
        folder.mkdir(parents=True)
        config = {
            "seed": seed,
            "method": {"name": "adamerging_layerwise"},
            "rule": {"name": "none"},
            "checkpoints": {"name": "task_vectors"},
            "start": None,
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "results.json").write_text(
            json.dumps({**asdict(results("adamerging_layerwise", average)), "seed": seed})
        )
    return tmp_path / "eight"


def test_compare_shows_them_beside_ours(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["compare", str(runs)])
    assert "80.2 ▼" in capsys.readouterr().out
    lines = (runs / "report" / "compare.md").read_text().splitlines()
    (theirs,) = [line for line in lines if "published" in line]
    assert theirs.startswith(
        "| - published (training log of the authors): ours is below | 80.2 | 64.5 | 68.1 |"
    )
    with (runs / "report" / "compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["published_verdict"] for row in rows} == {"below"}
    assert float(rows[0]["published_accuracy"]) == pytest.approx(0.6453)


def test_the_end_of_a_run_says_it(runs: Path) -> None:
    from adamerge.report.summary import published_line

    line = published_line(runs / "adamerging_layerwise" / "1", results("adamerging_layerwise", 0.80))
    assert line == "published: 80.2 (training log of the authors; tolerance 0.5); this run is within it"
    assert published_line(runs, results("adamerging_layerwise", 0.80)) == ""
