"""Mirrors of a run, by reading what W&B, TensorBoard and the CSV logger wrote."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
from commands.conftest import finished
from tracking.wandb_files import Written, read

from adamerge.__main__ import main
from adamerge.errors import RunError
from adamerge.runs import recipe
from adamerge.tracking.journal import Journal
from adamerge.tracking.results import Results, read_results
from adamerge.tracking.weights_and_biases import WandbMirror

Train = Callable[..., tuple[Path, Results]]


def shown(folder: Path) -> list[Written]:
    """What W&B wrote for a run, oldest first."""
    files = sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    return [read(path) for path in files]


def stopped(train: Train, home: Path, monkeypatch: pytest.MonkeyPatch, by: BaseException) -> Path:
    """The folder of a run that adapted and was stopped before its results."""

    def stop(*_: Any) -> Any:
        raise by

    with monkeypatch.context() as patch:
        patch.setattr(recipe, "evaluate", stop)
        with pytest.raises(SystemExit):
            train("surgery", "logger=wandb")
    (folder,) = home.glob("outputs/mini/surgery/*")
    return folder


def test_wandb_has_the_config_the_journal_the_results_and_the_merged_model(train: Train) -> None:
    folder, results = train("adamerging_layerwise", "logger=wandb", "logger.wandb.tags=[tried]")
    (seen,) = shown(folder)
    assert seen.run.run_id == folder.name
    assert seen.run.run_group == "mini"
    assert seen.run.job_type == "adamerging_layerwise"
    assert list(seen.run.tags) == ["tried"]
    named = ("method_name", "rule_name", "suite_name", "backbone_name", "seed")
    assert [seen.config[key] for key in named] == ["adamerging_layerwise", "none", "mini", "mini", 0]
    assert seen.config["method"]["schedule"]["steps"] == 3
    assert seen.metrics["*"].step_metric == "step"

    journal = Journal(folder / "journal.jsonl").read()
    assert [
        {key: line.get(key) for key in record} for line, record in zip(seen.history, journal, strict=True)
    ] == journal
    assert seen.summary["test/average"] == pytest.approx(results.average)
    for task, result in results.tasks.items():
        assert seen.summary[f"test/{task}"] == pytest.approx(result.accuracy)
    assert seen.summary["cost/trainable_parameters"] == results.trainable_parameters
    assert seen.summary["state"] == "finished"
    assert seen.exit_code == 0

    (written,) = folder.glob("wandb/offline-run-*/files")
    table = json.loads((written / seen.summary["tables/tasks/path"]).read_text())
    assert table["columns"][:2] == ["task", "accuracy"]
    assert [row[:2] for row in table["data"]] == [[t, r.accuracy] for t, r in results.tasks.items()]
    for name in ("coefficients", "loss", "accuracy"):
        picture = (written / seen.summary[f"figures/{name}/path"]).read_bytes()
        assert picture == (folder / "figures" / f"{name}.png").read_bytes()

    model = seen.artifacts[f"merged-{folder.name}"]
    files = {entry.path: entry.ref for entry in model.manifest.contents}
    assert files["merged.safetensors"] == (folder / "merged.safetensors").absolute().as_uri()  # not uploaded
    assert files["results.json"] == ""
    used = json.loads((folder / "lineage.json").read_text())["uses"]
    assert set(used) == {"base", "experts/digits", "experts/signs"}
    assert json.loads(model.metadata)["uses"] == {name: weights["identity"] for name, weights in used.items()}


def test_upload_takes_the_weights_along(train: Train) -> None:
    folder, _ = train("adamerging_taskwise", "logger=wandb", "logger.wandb.upload=true")
    (seen,) = shown(folder)
    files = {entry.path: entry.ref for entry in seen.artifacts[f"merged-{folder.name}"].manifest.contents}
    assert files["merged.safetensors"] == files["state.safetensors"] == ""


def test_a_rule_without_training_is_mirrored_too(home: Path) -> None:
    main(["merge", "rule=ties", "suite.tasks=[digits,signs]", "logger=wandb"])
    (folder,) = finished(home).values()
    (seen,) = shown(folder)
    assert seen.summary["test/average"] == pytest.approx(read_results(folder).average)
    assert seen.config["rule_name"] == "ties"
    assert not [line for line in seen.history if "loss" in line]


def test_a_failed_run_is_marked_and_the_same_command_shows_it_whole(
    train: Train, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = stopped(train, home, monkeypatch, RunError("no more room"))
    (failed,) = shown(folder)
    assert failed.exit_code == 1
    assert failed.summary["state"] == "failed"
    assert failed.summary["error"] == "RunError: no more room"
    capsys.readouterr()
    main(["compare", str(home / "outputs")])
    assert "failed: RunError: no more room" in capsys.readouterr().out

    train("surgery", "logger=wandb")
    _, whole = shown(folder)
    assert whole.exit_code == 0
    assert not (folder / "error.txt").exists()
    losses = [record["loss"] for record in Journal(folder / "journal.jsonl").read()]
    assert [line["loss"] for line in whole.history if "loss" in line] == losses
    assert len(losses) == 3


def test_an_interrupted_run_is_not_called_failed(
    train: Train, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stopped(train, home, monkeypatch, KeyboardInterrupt())
    (seen,) = shown(folder)
    assert (seen.exit_code, seen.summary["state"]) == (1, "interrupted")
    assert not (folder / "error.txt").exists()


def test_compare_replays_finished_failed_and_killed_runs(
    train: Train, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, results = train("surgery")
    for name, text in {"killed": None, "failed": "RunError: no more room\n", "damaged": None}.items():
        other = folder.parent / name
        other.mkdir()
        for file in ("config.yaml", "lineage.json"):
            shutil.copy(folder / file, other)
        lines = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
        (other / "journal.jsonl").write_text(lines[0] + ("?\n" if name == "damaged" else "") + lines[1])
        if text:
            (other / "error.txt").write_text(text)
    capsys.readouterr()
    main(["compare", str(home / "outputs"), "--wandb", "team/project"])
    assert "line 2, is damaged" in capsys.readouterr().out
    (whole,), (killed,), (failed,) = (
        shown(folder.parent / name) for name in (folder.name, "killed", "failed")
    )
    assert [seen.exit_code for seen in (whole, killed, failed)] == [0, 1, 1]
    assert [seen.summary["state"] for seen in (whole, killed, failed)] == [
        "finished",
        "interrupted",
        "failed",
    ]
    assert (whole.run.entity, whole.run.project) == ("team", "project")
    assert whole.summary["test/average"] == pytest.approx(results.average)
    assert [line["loss"] for line in killed.history] == [line["loss"] for line in whole.history][:2]
    assert failed.summary["error"] == "RunError: no more room"
    assert not shown(folder.parent / "damaged")
    # What W&B wrote into the run folders is no run.
    capsys.readouterr()
    main(["compare", str(home / "outputs")])
    assert "wandb" not in capsys.readouterr().out


def test_online_inputs_are_linked_and_known_steps_are_not_sent_again(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no server here: a stand-in for the W&B run keeps what it is told."""
    folder, _ = train("adamerging_taskwise")
    told: dict[str, list[Any]] = {"log": [], "use_artifact": [], "log_artifact": [], "finish": []}
    given: dict[str, Any] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda *words, **more: told[name].append((*words, more))

    class Run(SimpleNamespace):
        offline = disabled = False
        starting_step = 2

    def init(**options: Any) -> Run:
        given.update(options)
        return Run(summary={}, define_metric=lambda *_, **__: None, **{name: keep(name) for name in told})

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setenv("WANDB_MODE", "online")
    mirror = WandbMirror(folder, entity="team")
    mirror.start()
    for record in Journal(folder / "journal.jsonl").read():
        mirror.step(record)
    mirror.finish()
    assert (given["id"], given["resume"], given["entity"]) == (folder.name, "allow", "team")
    assert [more["step"] for *_, more in told["log"] if "step" in more] == [2]
    inputs = {artifact.name: artifact for artifact, _ in told["use_artifact"]}
    used = json.loads((folder / "lineage.json").read_text())["uses"]
    assert set(inputs) == {f"{n.replace('/', '-')}-{w['identity'][:12]}" for n, w in used.items()}
    assert {artifact.type for artifact in inputs.values()} == {"base", "expert"}
    ((model, _),) = told["log_artifact"]
    assert model.type == "merged"
    assert told["finish"] == [({"exit_code": 0},)]


def test_without_network_or_key_the_error_says_what_to_do(
    train: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def init(**_: Any) -> Any:
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr(wandb, "init", init)
    with pytest.raises(SystemExit) as stopped:
        train("adamerging_taskwise", "logger=wandb", "logger.wandb.mode=online")
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "No API key configured" in error
    assert "WANDB_MODE=offline" in error


def test_disabled_wandb_writes_nothing(train: Train) -> None:
    folder, _ = train("adamerging_taskwise", "logger=wandb", "logger.wandb.mode=disabled")
    assert not shown(folder)
    assert (folder / "results.json").exists()


def test_csv_has_the_journal_and_the_results(train: Train) -> None:
    folder, results = train("adamerging_taskwise", "logger=csv", "seed=5")
    (mirror,) = folder.rglob("metrics.csv")
    *steps, last = csv.DictReader(mirror.read_text().splitlines())
    losses = [record["loss"] for record in Journal(folder / "journal.jsonl").read()]
    assert [float(line["loss"]) for line in steps] == pytest.approx(losses)
    assert float(last["test/average"]) == pytest.approx(results.average)


def test_tensorboard_has_the_journal_and_the_results(train: Train) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder, results = train("adamerging_taskwise", "logger=tensorboard")
    (events,) = folder.rglob("events.out.tfevents.*")
    seen = accumulator.EventAccumulator(str(events))
    seen.Reload()
    losses = [record["loss"] for record in Journal(folder / "journal.jsonl").read()]
    assert [(event.step, event.value) for event in seen.Scalars("loss")] == [
        (step, pytest.approx(loss)) for step, loss in enumerate(losses)
    ]
    assert seen.Scalars("test/average")[0].value == pytest.approx(results.average)


def test_a_logger_that_is_not_installed_is_named(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        train("adamerging_taskwise", "+logger.flow._target_=pytorch_lightning.loggers.MLFlowLogger")
    assert stopped.value.code == 2
    assert "logger.flow" in capsys.readouterr().err


def test_the_dashboard_groups_by_method(train: Train, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("wandb_workspaces")
    train("adamerging_taskwise")
    main(["compare", str(home / "outputs"), "--wandb-workspace", "team/project"])
    (path,) = home.rglob("workspace.json")
    assert str(path.relative_to(home)) in capsys.readouterr().out
    content = json.loads(path.read_text())
    assert (content["entity"], content["project"]) == ("team", "project")
    spec = content["spec"]["section"]
    sections = spec["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == ["Accuracy", "Curves", "Coefficients", "Cost"]
    bars = [panel["config"] for panel in sections[0]["panels"] if panel["viewType"] == "Bar Chart"]
    assert [panel["metrics"][0] for panel in bars] == [
        f"summary_metrics.test/{name}" for name in ("average", "agreement", "digits", "signs")
    ]
    assert {panel["groupBy"] for panel in bars} == {"method_name.value"}
    assert sections[2]["panels"][0]["config"]["mediaKeys"] == ["figures/coefficients"]
    (run_set,) = spec["runSets"]
    assert [key["name"] for key in run_set["grouping"]] == ["method_name.value"]


@pytest.mark.parametrize("words", ["a/b/c", "team/", ""])
def test_what_is_no_project_is_refused(
    train: Train, home: Path, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    train("adamerging_taskwise")
    with pytest.raises(SystemExit):
        main(["compare", str(home / "outputs"), f"--wandb-workspace={words}"])
    assert "entity" in capsys.readouterr().err
