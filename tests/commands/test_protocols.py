"""What is adapted on and what is scored, through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from commands.conftest import QUICK, finished

import adamerge.runs.adapting as adapting
from adamerge.__main__ import main
from adamerge.tasks.mini import Mini
from adamerge.tasks.protocol import cut_rows, others
from adamerge.tasks.stream import Stream
from adamerge.tracking.journal import Journal
from adamerge.tracking.results import read_results

TASKS = ("digits", "signs")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Stream]:
    """The streams that training sees."""
    streams: list[Stream] = []

    def make(*args: Any, **options: Any) -> Stream:
        streams.append(Stream(*args, **options))
        return streams[-1]

    monkeypatch.setattr(adapting, "Stream", make)
    return streams


def pixels(task: str, split: str = "test") -> torch.Tensor:
    return torch.from_numpy(Mini(task).images(split)).permute(0, 3, 1, 2)


def test_with_a_share_only_the_adapted_part_is_seen_and_the_rest_is_scored(train: Any, shown: Any) -> None:
    _, results = train("surgery", "suite.adapt_on={share: 0.5}", "eval_every=2", "eval_images=16")
    (stream,) = shown
    for task in TASKS:
        rows = cut_rows(task, len(pixels(task)), 0.5)
        assert torch.equal(stream.image_sets[task][slice(None)], pixels(task)[rows])
        assert results.tasks[task].n == results.held_out[task].n == len(others(rows, len(pixels(task))))
        assert results.adapted[task].n == len(rows)
        assert results.tasks[task].accuracy == results.held_out[task].accuracy
    assert (results.protocol, results.suite) == ("inductive", "mini, unseen 0.5 of test")
    assert results.gap == pytest.approx(results.adapted_average - results.average)


def test_both_parts_together_are_the_whole_split(train: Any, home: Path) -> None:
    """A static rule adapts on nothing: its parts' accuracies add up to that of the whole split."""
    words = ["rule=task_arithmetic", *QUICK[:3]]
    main(["merge", "suite.adapt_on={share: 0.3, cut: 2}", *words])
    cut = read_results(finished(home)["task_arithmetic"])
    (home / "outputs").rename(home / "cut")
    main(["merge", *words])
    whole = read_results(finished(home)["task_arithmetic"])
    for task in TASKS:
        seen, unseen = cut.adapted[task], cut.held_out[task]
        assert seen.n == round(0.3 * (seen.n + unseen.n))
        assert seen.n * seen.accuracy + unseen.n * unseen.accuracy == pytest.approx(
            whole.tasks[task].n * whole.tasks[task].accuracy
        )
    assert (cut.protocol, whole.protocol) == ("none", "none")
    assert whole.gap is None
    assert not whole.adapted


def test_a_pool_of_images_is_all_that_is_seen(train: Any, shown: Any) -> None:
    _, results = train("surgery", "suite.adapt_images=20", "seed=3")
    (stream,) = shown
    assert [len(images) for images in stream.image_sets.values()] == [20, 20]
    assert results.protocol == "transductive"
    assert results.adapted["signs"].n == 20
    assert results.held_out["signs"].n == 980
    assert results.tasks["signs"].n == 1000


@pytest.mark.parametrize(("method", "split"), [("twin", "validation"), ("prodistill", "train")])
def test_the_papers_sources_of_images_are_the_presets(
    train: Any, home: Path, shown: Any, method: str, split: str
) -> None:
    steps = ["suite.tuned.prodistill.steps=4"] if method == "prodistill" else []
    _, results = train(method, *steps, *(["suite.adapt_images=64"]))
    assert results.protocol == "inductive"
    for task, images in shown[0].image_sets.items():
        known = {bytes(x.numpy()) for x in pixels(task, "train")}
        assert len(images) == 64
        assert all(bytes(x.numpy()) in known for x in images[slice(None)])
    assert results.tasks["signs"].n == 1000
    (home / "outputs").rename(home / "inductive")
    _, results = train(method, "method.adapt_on=test", *steps)
    assert results.protocol == "transductive"
    assert len(shown[1].image_sets["signs"]) == 1000


def test_training_images_that_are_not_there_are_asked_for(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from reports.inputs import digit_folders, on_folders

    words = on_folders(
        digit_folders(home / "data", 3), "method=twin", "method.schedule.steps=2", "suite.adapt_on=test"
    )
    with pytest.raises(SystemExit) as stop:
        main(["train", *words])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "twin adapts on validation images." in error
    assert "method.adapt_on=test" in error


def test_a_stream_in_an_order_is_followed_and_reported(
    train: Any, shown: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, results = train("surgery", "stream=few_1_4")
    (stream,) = shown
    for task in TASKS:
        labels = torch.from_numpy(Mini(task).labels("test"))
        for step in range(3):
            rows = stream.indices(task, step)
            assert len(rows) == 32
            assert 1 <= len(labels[rows].unique()) <= 4
    assert results.stream == "1 to 4 classes"
    assert "stream: 1 to 4 classes" in capsys.readouterr().out
    # The recorded features are those of the images in the stream.
    assert [r["step"] for r in Journal(folder / "journal.jsonl").read()] == [0, 1, 2]


def test_tasks_mixed_in_a_batch_are_trained_on(train: Any) -> None:
    for method in ("adamerging_layerwise", "concrete_layerwise"):
        extra = ["suite.tuned.concrete_layerwise.meta_steps=2"] if method.startswith("concrete") else []
        folder, results = train(method, "stream=mixed_tasks", *extra)
        assert results.stream == "tasks mixed"
        losses = Journal(folder / "journal.jsonl").read()
        assert all(record["loss"] is not None for record in losses)


def test_a_method_that_learns_from_labels_sees_no_stream(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "method=supermerge", "stream=class_by_class", "method.schedule.steps=2", *QUICK])
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert "supermerge learns from labelled training images" in said.err
    assert "supermerge on mini" not in said.out  # it was not begun
    assert not (home / "outputs").exists()


def test_evaluation_while_training_changes_nothing_and_is_drawn(train: Any, home: Path) -> None:
    plain, _ = train("wemoe")
    losses = [r["loss"] for r in Journal(plain / "journal.jsonl").read()]
    content = (plain / "state.safetensors").read_bytes()
    (plain / "results.json").unlink()
    (plain / "checkpoints" / "last.ckpt").unlink()
    folder, _ = train("wemoe", "eval_every=2", "eval_images=16")
    assert folder == plain  # the id does not know of it
    assert (folder / "state.safetensors").read_bytes() == content
    records = Journal(folder / "journal.jsonl").read()
    assert [r["loss"] for r in records] == losses
    assert [r["step"] for r in records if "eval/estimate" in r] == [0, 1, 2]
    assert all(0 < r["eval/accuracy"] < 1 for r in records)
    assert (folder / "figures" / "evaluation.png").exists()
    main(["compare", "outputs"])
    page = (home / "outputs" / "report" / "report.html").read_text()
    assert "Evaluation while training" in page
    assert "Calibration" in page


def test_tables_say_how_a_number_came_about(
    train: Any, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train("surgery", "suite.adapt_on={share: 0.5}")
    main(["merge", "rule=task_arithmetic", "suite.adapt_on={share: 0.5}", *QUICK[:3]])
    capsys.readouterr()
    main(["compare", "outputs"])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines()[:12])) <= 80
    assert "induct." in out
    assert "gap" in out
    assert "scale chosen by: labels" in out
    report = home / "outputs" / "report"
    for name in ("compare.md", "compare.tex", "report.html"):
        text = (report / name).read_text()
        for part in ("protocol", "inductive", "task known: yes", "scale chosen by: labels", "experts: mini"):
            assert part in text, (name, part)
    assert "| method | adapted on | not adapted on | gap |" in (report / "compare.md").read_text()
    assert "protocol,task_known,scale_chosen_by,experts,stream" in (report / "compare.csv").read_text()


def test_streams_stand_beside_each_other(train: Any, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for stream in ("independent", "class_by_class", "dirichlet_01", "dirichlet_001"):
        train("surgery", f"stream={stream}", steps=1)
        main(["train", "method=task_arithmetic", f"stream={stream}", *QUICK[:3]])
    capsys.readouterr()
    main(["compare", "outputs"])
    assert "average by stream" in capsys.readouterr().out
    lines = (home / "outputs" / "report" / "compare.md").read_text().splitlines()
    assert "| method | independent | Dirichlet 0.1 | Dirichlet 0.01 | class by class |" in lines
    row = next(line for line in lines if line.startswith("| surgery |") and line.count("|") == 6)
    assert "–" not in row
    arithmetic = [line for line in lines if line.startswith("| task_arithmetic |")]
    assert any(line.endswith("|  |  |  |") for line in arithmetic)  # a rule has no stream
    assert json.loads((next(home.glob("outputs/*/surgery/*/results.json"))).read_text())["schema"] == 2


def test_a_cut_run_is_evaluated_on_its_own_part_and_on_no_others(
    train: Any, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other part is known by its pictures' numbers: corrupted they keep them, other pictures have others."""
    folder, results = train("surgery", "suite.adapt_on={share: 0.5}", steps=1)
    main(["evaluate", f"run={folder}", "suite.corruption=jpeg", "suite.strengths=cifar", "out=jpeg.json"])
    found = json.loads((home / "jpeg.json").read_text())
    assert found["suite"] == "mini, jpeg 2 (cifar), unseen 0.5 of test"
    assert [task["n"] for task in found["tasks"].values()] == [task.n for task in results.tasks.values()]
    assert found["protocol"] is None
    for word in ("suite.limit=100", "suite.validation=true"):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(["evaluate", f"run={folder}", word])
        assert stop.value.code == 2
        assert "adapted on a part of its test pictures" in capsys.readouterr().err
