"""Adapting through the command line: recordings, learned coefficients as a start, labels, every method on mini."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from commands.conftest import QUICK, finished

from adamerge.__main__ import main
from adamerge.checkpoints import open_checkpoint
from adamerge.tracking.journal import Journal
from adamerge.tracking.results import read_results


def state(folder: Any) -> Any:
    return open_checkpoint(folder / "state.safetensors").state


@pytest.mark.parametrize("method", ["surgery", "surgery_v2", "tinting", "tinting_head", "surgery_online"])
def test_a_recorded_run_is_the_unrecorded_one(train: Any, home: Path, method: str) -> None:
    """The same images in the same order: equal losses and equal trained parts, up to the size of a matrix product."""
    recorded, _ = train(method, steps=4)
    (home / "outputs").rename(home / "recorded")
    recorded = home / "recorded" / recorded.relative_to(home / "outputs")
    computed, _ = train(method, "record=false", steps=4)
    losses = [[r["loss"] for r in Journal(f / "journal.jsonl").read()] for f in (recorded, computed)]
    torch.testing.assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]), rtol=1e-4, atol=1e-4)
    for key, value in state(recorded).items():
        torch.testing.assert_close(value, state(computed)[key], rtol=1e-3, atol=1e-4)


def test_recordings_are_made_once(train: Any, home: Path, cache: Path) -> None:
    train("surgery")
    folder = cache / "representations"
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}
    assert len(before) >= 4  # the merged encoder's and the expert's of two tasks
    train("surgery", "method.optimizer.lr=1e-2")
    train("tinting_head", "method.schedule.batches_per_task=1", "method.schedule.batch_size=32")
    after = {path: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}
    assert {path: time for path, time in after.items() if path in before} == before


def test_another_encoder_is_recorded_anew(train: Any, home: Path) -> None:
    """The key is the encoder itself: whatever changes the merge changes it."""
    losses = {}
    for words in (["suite.prior=0.1"], ["suite.prior=0.2"], ["rule=weight_average"]):
        folder, _ = train("surgery", *words, steps=2)
        losses[words[0]] = Journal(folder / "journal.jsonl").read()[0]["loss"]
        (home / "outputs").rename(home / words[0])
    assert len(set(losses.values())) == 3
    computed, _ = train("surgery", "suite.prior=0.2", "record=false", steps=2)
    expected = Journal(computed / "journal.jsonl").read()[0]["loss"]
    assert losses["suite.prior=0.2"] == pytest.approx(expected, rel=1e-4)


def test_learned_coefficients_are_a_start_for_other_methods(train: Any) -> None:
    folder, _ = train("adamerging_layerwise", steps=4)
    merged = open_checkpoint(folder / "merged.safetensors").state
    above, results = train("surgery", f"start={folder}", steps=2)
    assert results.trainable_parameters == 2 * 2 * 16 * 64
    for key, value in open_checkpoint(above / "merged.safetensors").state.items():
        torch.testing.assert_close(value, merged[key])
    tinted, _ = train("tinting_head", f"start={folder}", steps=1)
    for key, value in open_checkpoint(tinted / "merged.safetensors").state.items():
        torch.testing.assert_close(value, merged[key])


def test_a_start_is_part_of_the_run_and_may_be_task_wise(train: Any, home: Path) -> None:
    one, _ = train("adamerging_taskwise", steps=2)
    table = json.loads((one / "coefficients.json").read_text())
    file = home / "table.json"
    file.write_text(json.dumps({**table, "values": [[0.25, 0.5]]}))
    main(["train", "method=adamerging_taskwise", f"start={file}", "method.schedule.steps=1", *QUICK])
    runs = [p.parent for p in home.glob("outputs/mini/adamerging_taskwise/*/results.json")]
    other = next(run for run in runs if run != one)
    values = json.loads((other / "coefficients.json").read_text())["values"]
    torch.testing.assert_close(torch.tensor(values), torch.tensor([[0.25, 0.5]]), rtol=0, atol=0.01)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"layers": ["all"], "tasks": ["digits"], "values": [[0.3]]}, "no coefficients for task signs"),
        ({"layers": ["visual.proj"], "tasks": ["digits", "signs"], "values": [[0.1, 0.2]]}, "for layer"),
        ({"layers": ["all"], "tasks": ["digits", "signs"], "values": [[0.3]]}, "but values of"),
        ({"tasks": []}, "is no table of coefficients"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str], content: Any, complaint: str
) -> None:
    (home / "bad.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit) as stop:
        main(["train", "method=surgery", "start=bad.json", *QUICK])
    assert stop.value.code == 2
    assert complaint in capsys.readouterr().err


def test_a_start_that_is_not_there_is_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "method=surgery", "start=nowhere", *QUICK])
    assert "start: nowhere" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["fw_hard", "fw_soft", "supermerge", "atm"])
def test_methods_with_labels_are_refused_where_there_are_none(
    home: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    from PIL import Image

    from adamerge.tasks.mini import Mini

    for task in ("digits", "signs"):
        (home / "photos" / task).mkdir(parents=True)
        for index, pixels in enumerate(Mini(task).images("test")[:8]):
            Image.fromarray(pixels).save(home / "photos" / task / f"{index}.png")
    words = [
        "suite=folders", "suite.data=photos", "suite.tasks=[digits,signs]", "checkpoints=mini",
        "+suite.catalogue.digits.classes=[zero,one,two,three,four,five,six,seven,eight,nine]",
        "+suite.catalogue.signs.classes=[stop,yield,parking]",
    ]  # fmt: skip
    with pytest.raises(SystemExit) as stop:
        main(["train", f"method={method}", *QUICK[1:], *words])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "label" in error
    assert not finished(home)


def test_an_unknown_option_of_a_training_loop_is_a_mistake(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["train", "method=dam", "+method.training.wieght=0.2", *QUICK])
    assert "did you mean 'weight'" in capsys.readouterr().err


BRIEF = {
    "concrete_layerwise": "suite.tuned.concrete_layerwise.meta_steps=2",
    "dam": "suite.tuned.concrete_layerwise.meta_steps=2",
    "prodistill": "suite.tuned.prodistill.steps=4",
}


EVERY = (
    *(
        "wemoe",
        "e_wemoe",
        "concrete_ta",
        "concrete_layerwise",
        "dam",
        "doge_am",
        "fw_hard",
        "fw_soft",
        "supermerge",
    ),
    *("prodistill", "atm", "twin", "full_entropy", "symerge", "symerge_block", "emr"),
)


@pytest.mark.parametrize("method", EVERY)
def test_every_method_runs_and_restores(home: Path, method: Any, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["suite.steps=4", "suite.tuned.atm.steps=2", *QUICK[:3], "evaluation.batch_size=100"]
    if method in ("fw_hard",):
        words.append("method.schedule.steps=2")
    main(["train", f"method={method}", *words, *([BRIEF[method]] if method in BRIEF else [])])
    folder = finished(home)[method]
    results = read_results(folder)
    capsys.readouterr()
    main(["evaluate", f"run={folder}"])
    again = capsys.readouterr().out
    assert results.average is not None
    assert f"{100 * results.average:.1f}" in next(
        x for x in again.splitlines() if x.strip().startswith("average")
    )
    assert results.trainable_parameters > 0 or method == "emr"
