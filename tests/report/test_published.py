"""Published numbers: the data agree with themselves, and a run is judged by its own lineage and preset only."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from adamerge.__main__ import main
from adamerge.report.published import Published, every_row, families, published
from adamerge.settings import conf_dir
from adamerge.settings.groups import choices, method_names
from adamerge.tracking.preset import AgainstPreset, Start, write_preset
from adamerge.tracking.results import Results, TaskResult

EIGHT = ("sun397", "stanford_cars", "resisc45", "eurosat", "svhn", "gtsrb", "mnist", "dtd")
SUITES = {
    "eight": EIGHT,
    "exp1": ("sun397", "stanford_cars", "resisc45", "dtd", "svhn", "gtsrb"),
    "exp2": ("sun397", "stanford_cars", "gtsrb", "eurosat", "dtd", "mnist"),
}
METHODS = set(method_names())
RULES = {path.stem for path in (conf_dir() / "rule").glob("*.yaml")}
AS_IS = AgainstPreset()
LW = "6e33959607ebbea08eee712c9d8aa4bbda01edc978ed30360c8b9f9eccd50927"  # layer-wise AdaMerging, ViT-B-32
LW_PP = "4b12a4684982e494a32409bbe7976a4e13e73f7e9b5b668714ed701d6e1f6da1"


@pytest.mark.parametrize(("table", "row"), every_row())
def test_every_row_agrees_with_itself(table: dict[str, Any], row: Published) -> None:
    assert row.method in METHODS
    assert row.over is None or row.over in METHODS | RULES
    assert 0 < row.tolerance <= 0.005
    assert row.source
    assert row.confirmed or row.note, "what is no target says why"
    assert table["lineage"] in {"ta8", "tall", "hf", "tinting"}
    if row.tasks is not None:
        assert tuple(row.tasks) == tuple(table["tasks"])
        # Printed averages are rounded or truncated to a tenth of a point, but for those that say so.
        assert abs(row.average - row.printed) < 0.0011 or "not that of its columns" in row.note


def test_no_run_stands_twice_among_the_targets() -> None:
    seen = [
        (id(table), row.method, row.over, str(row.options)) for table, row in every_row() if row.confirmed
    ]
    assert len(seen) == len(set(seen))


def test_every_family_of_checkpoints_has_a_lineage_or_none() -> None:
    assert set(families()) == set(choices("checkpoints"))
    lineages = {table["lineage"] for table, _ in every_row()}
    assert {lineage for lineage in families().values() if lineage} == lineages


def test_every_table_belongs_to_one_lineage() -> None:
    named = [(t["suite"], t["backbone"], t["lineage"], tuple(t["tasks"])) for t, _ in every_row()]
    assert len(dict.fromkeys(named)) == len({id(t) for t, _ in every_row()})


@pytest.mark.parametrize(
    ("method", "over"), [("surgery", "weight_average"), ("individual", None), ("ties", None)]
)
def test_what_cannot_be_trusted_is_no_target(method: str, over: str | None) -> None:
    """Surgery over the average leaves DTD's vector out; TALL's experts have seen DTD's test pictures, and its TIES is
    tuned."""
    lineage = "ta8" if method == "surgery" else "tall"
    rows = [r for t, r in every_row() if (t["lineage"], r.method, r.over) == (lineage, method, over)]
    assert len(rows) >= 3
    assert not any(row.confirmed for row in rows)


def test_reruns_in_symerges_table_are_no_targets() -> None:
    confirmed = {
        row.method for table, row in every_row() if "SyMerge project page" in row.source and row.confirmed
    }
    assert confirmed == {"symerge"}


# --- which row a run is compared with ------------------------------------------------------------


def results(
    method: str,
    accuracy: float | dict[str, float],
    rule: str = "none",
    suite: str = "eight",
    backbone: str = "vit_b_32",
) -> Results:
    shares = accuracy if isinstance(accuracy, dict) else dict.fromkeys(EIGHT, accuracy)
    tasks = {
        task: TaskResult(
            accuracy=a, n=1, expert=1.0, pretrained=0.0, normalized=a, agreement=a
        )
        for task, a in shares.items()
    }  # fmt: skip
    return Results(
        run_id="x", command="train", method=method, rule=rule, suite=suite, backbone=backbone, seed=0, steps=1,
        trainable_parameters=1, seconds={"adapt": 1.0}, peak_memory_bytes=1, tasks=tasks, versions={}, device="cpu",
    )  # fmt: skip


def found(
    family: str,
    method: str,
    rule: str = "none",
    start: Start | None = None,
    suite: str = "eight",
    preset: AgainstPreset | None = AS_IS,
    given: str | None = None,
) -> Any:
    place = start.place if start else given
    if preset is not None:
        preset = replace(preset, start=start)
    config = {"checkpoints.name": family, "start": place, "suite.name": "eight"}
    return published(results(method, 0.8, rule, suite), config, preset)


def learned(
    method: str = "adamerging_layerwise",
    deviations: dict[str, Any] | None = None,
    rule: str = "none",
    **run: Any,
) -> Start:
    names = {"method": method, "rule": rule, "suite": "eight", "backbone": "vit_b_32", "tasks": list(EIGHT)}
    given = {**names, "checkpoints": "task_vectors", "start": None, **run}
    return Start(f"outputs/eight/{method}/0123", "0", given, deviations if deviations is not None else {})


def test_a_run_is_compared_with_its_own_lineage_only() -> None:
    assert found("task_vectors", "adamerging_layerwise").printed == pytest.approx(0.8018)
    assert found("fusion_bench", "adamerging_layerwise_fb").printed == pytest.approx(0.826)
    assert found("fusion_bench", "adamerging_taskwise_fb").printed == pytest.approx(0.687)
    assert found("fusion_bench", "concrete_ta_fb").printed == pytest.approx(0.776)
    assert found("mini", "adamerging_layerwise") is None
    assert found("tall_masks", "adamerging_layerwise") is None
    assert found("tall_masks", "pretrained", rule="pretrained").printed == pytest.approx(0.483)
    assert found("tinting", "symerge").printed == pytest.approx(0.901)
    assert found("task_vectors", "symerge") is None  # on ViT-B/32 SyMerge has experts of its own
    assert found("task_vectors", "adamerging_layerwise", suite="eight, validation") is None


def test_the_other_codes_settings_are_shown_and_not_judged() -> None:
    other = found("fusion_bench", "adamerging_layerwise")
    assert (other.printed, other.reason) == (0.826, "the published preset is adamerging_layerwise_fb")
    other = found("task_vectors", "wemoe_fb")
    assert (other.method, other.reason) == ("wemoe", "the published preset is wemoe")


@pytest.mark.parametrize(
    ("option", "pair", "told"),
    [
        ("method.schedule.steps", [50, 500], "method.schedule.steps=50 (preset: 500)"),
        ("method.model.start", [0.2, 0.3], "method.model.start=0.2 (preset: 0.3)"),
        ("method.model.clamp", [False, True], "method.model.clamp=false (preset: true)"),
        ("rule.reference_size", [None, 113448705], "rule.reference_size=null (preset: 113448705)"),
    ],
)
def test_another_setting_is_shown_and_not_judged(option: str, pair: list[Any], told: str) -> None:
    known = found("task_vectors", "adamerging_layerwise", preset=AgainstPreset({option: pair}))
    assert known.printed == pytest.approx(0.8018)
    assert known.verdict(dict.fromkeys(EIGHT, 0.8)) == "not judged"
    assert known.words(dict.fromkeys(EIGHT, 0.8)) == f"not judged: {told}"


def test_a_run_that_says_nothing_of_its_preset_is_not_judged() -> None:
    assert "does not say" in found("task_vectors", "adamerging_layerwise", preset=None).reason


def test_what_the_published_run_changed_is_no_deviation() -> None:
    def with_router(layers: int) -> Any:
        changed = AgainstPreset({"method.model.router_layers": [layers, 2]})
        return found("task_vectors", "wemoe", preset=changed)

    assert (with_router(1).printed, with_router(1).average) == (0.883, pytest.approx(0.88825))
    assert with_router(1).reason == ""
    assert with_router(0).reason == "method.model.router_layers=0 (preset: 2)"
    tenth = AgainstPreset({"rule.scale": [0.1, 0.3]})
    known = found("task_vectors", "task_arithmetic", rule="task_arithmetic", preset=tenth)
    assert (known.average, known.reason) == (0.639, "")


def test_symerge_may_run_in_mixed_precision_and_others_may_not() -> None:
    mixed = AgainstPreset({"trainer.precision": ["16-mixed", None]})
    assert found("tinting", "symerge", preset=mixed).reason == ""
    assert "precision" in found("task_vectors", "wemoe", preset=mixed).reason


def test_what_lies_below_the_method_counts() -> None:
    assert found("task_vectors", "surgery").printed == pytest.approx(0.8091)
    assert found("task_vectors", "surgery", rule="ties").printed == pytest.approx(0.8318)
    started = found("task_vectors", "surgery", start=learned())
    assert (started.printed, started.reason) == (0.861, "")
    assert found("task_vectors", "surgery", start=Start("tables/x.json", LW)) == started
    assert found("task_vectors", "surgery", start=learned("adamerging_layerwise_pp", rule="ties")) is None
    assert found("task_vectors", "adamerging_layerwise_pp", rule="ties").printed == pytest.approx(0.8115)
    assert found("task_vectors", "adamerging_layerwise", rule="ties") is None


@pytest.mark.parametrize(
    ("start", "why"),
    [
        (learned("adamerging_layerwise", {"method.schedule.steps": [50, 500]}), "start: method.schedule.steps=50"),
        (learned("adamerging_layerwise_fb"), "start=outputs/eight/adamerging_layerwise_fb"),
        (learned(checkpoints="fusion_bench"), "start=outputs"),
        (learned(tasks=list(EIGHT[:4])), "start=outputs"),
        (learned(start="another"), "start=outputs"),
        (Start("tables/lw_adamerging-ViT-B-32.json", "0" * 64), "start=tables/lw_adamerging"),
        (replace(learned(), deviations=None), "does not say"),
    ],
)  # fmt: skip
def test_a_start_is_what_it_holds_and_not_what_it_is_called(start: Start, why: str) -> None:
    known = found("task_vectors", "surgery", start=start)
    assert known is None or why in known.reason


def test_published_coefficients_are_judged_by_the_run_that_they_come_from() -> None:
    table = Start("anything.json", LW)
    assert found("task_vectors", "none", start=table) == found("task_vectors", "adamerging_layerwise")
    pp = found("task_vectors", "ties", rule="ties", start=Start("x.json", LW_PP))
    assert pp == found("task_vectors", "adamerging_layerwise_pp", rule="ties")
    assert found("task_vectors", "none", start=Start("lw_adamerging-ViT-B-32.json", "0")) is None


def test_corrupted_pictures_are_judged_on_the_hubs_splits() -> None:
    four = dict.fromkeys(("stanford_cars", "eurosat", "resisc45", "gtsrb"), 0.8)

    def of(suite: str) -> Any:
        config = {"checkpoints.name": "fusion_bench", "suite.name": "eight"}
        return published(results("wemoe_fb", four, suite=suite), config, AS_IS)

    assert (of("eight, split motion_blur").printed, of("eight, split motion_blur").reason) == (0.855, "")
    assert of("eight, split jpeg_compression").printed == pytest.approx(0.82)
    assert of("eight, motion_blur 2 (cifar)").reason == "the pictures were corrupted here"
    assert of("eight, motion_blur 2") is None  # ImageNet-C's strengths: other pictures altogether
    assert "information" in of("eight, split pixelate").reason


# --- the verdict ------------------------------------------------------------


def test_the_verdict_includes_the_edge_and_leaves_out_what_is_not_confirmed() -> None:
    known = Published("m", printed=0.801, tolerance=0.005, source="s")
    assert [known.verdict({"a": x}) for x in (0.796, 0.806, 0.7959, 0.8061, None)] == [
        "within", "within", "below", "above", "not judged",
    ]  # fmt: skip
    unsure = Published("m", 0.8, 0.005, "s", confirmed=False, note="from memory")
    assert (unsure.verdict({"a": 0.8}), unsure.words({"a": 0.8})) == ("not judged", "not judged: from memory")


def test_the_mean_of_the_tasks_is_the_target_and_two_tasks_are_apart() -> None:
    tasks = {"sun397": 0.6, "eurosat": 0.9, "mnist": 0.98, "dtd": 0.5}
    known = Published("m", 0.1, 0.001, "s", tasks=tasks, apart={"sun397": 0.005, "eurosat": 0.02})
    assert known.average == pytest.approx(0.745)
    ours = {**tasks, "eurosat": 0.87, "sun397": 0.604}
    assert known.verdict(ours) == "within"
    assert known.words(ours) == "ours is within 0.1, sun397 within 0.5, eurosat below"
    assert known.verdict({**tasks, "mnist": 0.977}) == "below"


def test_an_average_alone_leaves_room_for_the_tasks_apart() -> None:
    known = Published("m", 0.8, 0.001, "s", apart={"sun397": 0.005, "eurosat": 0.02})
    four = {"sun397": 0.8, "eurosat": 0.775, "mnist": 0.8, "dtd": 0.8}
    assert known.verdict(four) == "within"  # 0.1 and a quarter of 0.5 and 2.0
    assert known.verdict({**four, "dtd": 0.79}) == "below"


@pytest.mark.parametrize("rerun", yaml.safe_load((Path(__file__).parent / "reruns.yaml").read_text()))
def test_a_known_rerun_passes(rerun: dict[str, Any]) -> None:
    names = SUITES[rerun["suite"]]
    shares = {task: value / 100 for task, value in zip(names, rerun["tasks"], strict=True)}
    config = {"checkpoints.name": "task_vectors", "suite.name": "eight"}
    run = results(rerun["method"], shares, rule=rerun["method"], backbone=rerun["backbone"])
    known = published(run, config, AS_IS)
    assert known is not None
    assert known.verdict(shares) == "within"
    assert set(known.verdicts_apart(shares).values()) <= {"within"}


# --- where it is shown ------------------------------------------------------------


@pytest.fixture
def runs(tmp_path: Path) -> Path:
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
        write_preset(folder, {}, None)
    return tmp_path / "eight"


def test_compare_shows_them_beside_ours(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["compare", str(runs)])
    assert "80.2 ▼" in capsys.readouterr().out
    lines = (runs / "report" / "compare.md").read_text().splitlines()
    (theirs,) = [line for line in lines if "published" in line]
    words = "ours is below, sun397 above, eurosat below"
    assert theirs.startswith(f"| - published (training log of the authors): {words} | 80.2 | 64.5 | 68.1 |")
    with (runs / "report" / "compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["published_verdict"], row["published_words"]) for row in rows} == {("below", words)}
    assert float(rows[0]["published_accuracy"]) == pytest.approx(0.6453)


def test_one_seed_with_another_setting_is_enough_to_judge_none(runs: Path) -> None:
    write_preset(runs / "adamerging_layerwise" / "0", {"method.schedule.steps": (50, 500)}, None)
    main(["compare", str(runs)])
    assert "not judged: method.schedule.steps=50 (preset: 500)" in (runs / "report/compare.md").read_text()


def test_the_end_of_a_run_says_it(runs: Path) -> None:
    from adamerge.report.summary import published_line

    folder = runs / "adamerging_layerwise" / "1"
    shares = dict(zip(EIGHT, (64.5, 68.1, 79.3, 93.9, 87.0, 92.0, 97.5, 59.2), strict=True))
    near = results("adamerging_layerwise", {task: value / 100 for task, value in shares.items()})
    words = "ours is within 0.5, sun397 within 0.5, eurosat within 2.0"
    assert published_line(folder, near) == f"published: 80.2 (training log of the authors); {words}"
    (folder / "preset.json").unlink()
    assert "not judged: the run does not say" in published_line(folder, near)
    assert published_line(runs, near) == ""


def test_the_pretrained_model_stands_beside_every_unseen_task(runs: Path) -> None:
    for folder in sorted((runs / "adamerging_layerwise").iterdir()):
        content = json.loads((folder / "results.json").read_text())
        unseen = {
            "accuracy": 0.5,
            "n": 1,
            "expert": None,
            "pretrained": 0.25,
            "normalized": None,
            "agreement": None,
        }
        content["unseen"] = {"stl10": unseen}
        (folder / "results.json").write_text(json.dumps(content))
    main(["compare", str(runs)])
    text = (runs / "report/compare.md").read_text()
    assert "| Pre-trained | 25.0 | 25.0 |\n| adamerging_layerwise | 50.0 | 50.0 |" in text
