"""`evaluate run=`: the options apply to what the finished run is evaluated on, or are refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands.conftest import QUICK, finished
from reports.inputs import digit_folders, on_folders

from adamerge.__main__ import main
from adamerge.tracking.predictions import read_predictions
from adamerge.tracking.provenance import read_sittings


def evaluated(folder: Path, *words: str) -> dict[str, Any]:
    """The file that an evaluation with these options writes."""
    before = set(folder.glob("evaluations/*.json"))
    main(["evaluate", f"run={folder}", *words])
    (written,) = set(folder.glob("evaluations/*.json")) - before
    content: dict[str, Any] = json.loads(written.read_text())
    return content


@pytest.mark.parametrize("method", ["adamerging_taskwise", "surgery"])
def test_a_run_is_evaluated_on_corrupted_pictures_and_on_a_part_of_its_tasks(
    train: Any, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With per-task parts too: a part of the tasks leaves each task its own."""
    folder, clean = train(method)
    recorded = (folder / "results.json").read_bytes()
    noisy = evaluated(folder, "suite.corruption=gaussian_noise", "suite.severity=5")
    said = capsys.readouterr().out
    assert "evaluated with suite.corruption=gaussian_noise, suite.severity=5" in said
    assert "on mini, gaussian_noise 5" in said
    assert noisy["options"] == {"suite.corruption": "gaussian_noise", "suite.severity": 5}
    assert (noisy["run"], noisy["suite"]) == (folder.name, "mini, gaussian_noise 5")
    assert noisy["average"] < clean.average - 0.02
    assert f"{100 * noisy['average']:.1f}" in said
    made = noisy["provenance"]
    assert made["outcome"] == "finished"
    assert made["started"] <= made["ended"]
    kept = read_predictions(next(folder.glob("evaluations/*.predictions.npz")))
    for task, own in (kept or {}).items():
        assert own.correct.mean() == pytest.approx(noisy["tasks"][task]["accuracy"], abs=1e-12)
    part = evaluated(folder, "suite.tasks=[signs]", "evaluation.batch_size=64")
    assert list(part["tasks"]) == ["signs"]
    assert part["tasks"]["signs"]["accuracy"] == pytest.approx(clean.tasks["signs"].accuracy, abs=2e-3)
    few = evaluated(folder, "suite.limit=30")
    assert {task["n"] for task in few["tasks"].values()} == {30}
    assert (folder / "results.json").read_bytes() == recorded


def test_a_merge_evaluated_on_corrupted_pictures_is_the_merge_made_on_them(home: Path) -> None:
    merge = ["merge", "rule=task_arithmetic", *QUICK[:3]]
    main(merge)
    (clean,) = finished(home).values()
    options = ["suite.severity=4", "suite.corruption=contrast"]
    other = evaluated(clean, *options)
    main([*merge, *options, "outputs=corrupted"])
    (direct,) = home.glob("corrupted/*/*/*/results.json")
    expected = json.loads(direct.read_text())
    for key in ("tasks", "baselines", "suite", "average", "agreement"):
        assert other[key] == expected[key], key


def test_a_run_without_options_gives_the_table_that_it_recorded_and_writes_nothing(
    train: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, results = train("surgery")
    capsys.readouterr()
    before = sorted(folder.rglob("*"))
    main(["evaluate", f"run={folder}"])
    out = capsys.readouterr().out
    assert all(f"{100 * task.accuracy:.1f}" in out for task in results.tasks.values())
    assert f"{100 * results.average:.1f}" in out
    assert sorted(folder.rglob("*")) == before


def test_a_run_that_keeps_no_predictions_is_given_them_where_they_are_what_it_counted(
    train: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, results = train("adamerging_taskwise")
    kept = folder / "predictions.npz"
    found, before = read_predictions(kept), kept.read_bytes()
    for task, result in results.tasks.items():
        own = found[task]
        assert own.correct.mean() == pytest.approx(result.accuracy, abs=1e-12)
        assert own.correct.shape == (result.n,)
        assert ((own.probability > 0.02) & (own.probability <= 1)).all()
    kept.unlink()
    main(["evaluate", f"run={folder}", "evaluation.keep_predictions=false"])
    assert not list(folder.rglob("*.npz"))
    main(["evaluate", f"run={folder}"])
    assert kept.read_bytes() == before
    assert [one.outcome for one in read_sittings(folder)] == ["finished", "finished"]
    kept.unlink()
    content = json.loads((folder / "results.json").read_text())
    content["tasks"]["signs"]["accuracy"] += 0.001
    (folder / "results.json").write_text(json.dumps(content))
    capsys.readouterr()
    main(["evaluate", f"run={folder}"])
    assert "predictions are not kept" in " ".join(capsys.readouterr().out.split())
    assert not kept.exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ["method=surgery"],
            "method: cannot apply to a finished run; it was made with method=adamerging_task",
        ),
        (["rule=ties"], "rule: cannot apply to a finished run; it was made with rule=none."),
        (["seed=3"], "seed: cannot apply to a finished run; it was made with seed=0."),
        (["backbone=vit_b_32"], "backbone: cannot apply to a finished run; it was made with backbone=mini."),
        (["suite=eight"], "suite: cannot apply to a finished run; it was made with suite=mini."),
        (
            ["method.model.rank=3"],
            "method.model.rank: cannot apply to a finished run; it was made without it.",
        ),
        (["+suite.sevrity=3"], "suite.sevrity: cannot apply"),
        (
            ["suite.tasks=[signs,scenes]"],
            "suite.tasks: the run does not know 'scenes'; it has digits, signs.",
        ),
        (["suite.unseen=[scenes]"], "suite.unseen: the run does not know 'scenes'; it has none."),
        (["suite.data=/tmp"], "suite.data: the suite mini reads its pictures from no folder."),
        (["suite.severity=5"], "suite.severity: nothing is corrupted; give suite.corruption=... as well."),
        (["suite.corruption=noise"], "suite.corruption: no such corruption"),
        (["suite.limit=0"], "suite.limit: should be greater than 0"),
        (["suite.tasks=digits"], "suite.tasks: should be a list"),
        (["~suite.tasks"], "suite.tasks: cannot apply"),
        (["suite.limit=1,2"], "suite.limit: has several values"),
        (["checkpoint=a.pt"], "not both"),
        (["out=there.json"], "there.json is there already"),
        (["-m", "suite.limit=1,2"], "leave out -m"),
    ],
)
def test_what_cannot_apply_is_refused_by_name(
    fixed_run: Any, capsys: pytest.CaptureFixture[str], words: Any, text: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", f"run={fixed_run}", *words])
    assert stop.value.code == 2
    assert text in capsys.readouterr().err
    assert not (fixed_run / "evaluations").exists()


@pytest.fixture
def fixed_run(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run for all refusals: none of them gets as far as its weights' numbers."""
    kept = tmp_path_factory.getbasetemp() / "refusals"
    if not kept.exists():
        main(["train", "method=adamerging_taskwise", "method.schedule.steps=1", *QUICK])
        shutil.copytree(home / "outputs", kept)
    (home / "there.json").write_text("{}")
    (results,) = kept.glob("*/*/*/results.json")
    return results.parent


def test_other_pictures_of_the_same_classes_and_no_others(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["merge", *on_folders(digit_folders(home / "data", 5), "suite.prior=1.0")])
    (folder,) = finished(home).values()
    digit_folders(home / "more", 8)
    shutil.rmtree(home / "data")  # the run's own pictures are not needed
    more = evaluated(folder, f"suite.data={home / 'more'}")
    assert more["tasks"]["digits"]["n"] == 80
    (home / "more/digits/zero").rename(home / "more/digits/ten")
    with pytest.raises(SystemExit):
        main(["evaluate", f"run={folder}", f"suite.data={home / 'more'}"])
    assert "Task digits: label" in capsys.readouterr().err


def test_options_that_make_no_difference_to_an_encoder_are_refused(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "checkpoint=a.safetensors", "method=surgery", "seed=1"])
    said = capsys.readouterr().err
    assert "method: cannot apply" in said
    assert "seed: cannot apply" in said
