"""Whole runs as a user starts them: the contract of the run folder, resuming, finding a finished run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from commands.conftest import QUICK, finished
from safetensors.torch import load_file
from tracking.wandb_files import read

from adamerge.__main__ import main
from adamerge.tracking.journal import Journal
from adamerge.tracking.results import read_results

CONTRACT = {
    "schema", "run_id", "command", "method", "rule", "suite", "backbone", "seed", "steps", "trainable_parameters",
    "seconds", "peak_memory_bytes", "average", "normalized_average", "tasks", "versions", "device", "objective",
    "protocol", "task_known", "chooser", "lineage", "stream", "adapted", "held_out", "gap",
}  # fmt: skip


def test_a_run_folder_keeps_its_contract(train: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder, results = train("adamerging_layerwise")
    content = json.loads((folder / "results.json").read_text())
    assert set(content) >= CONTRACT
    assert set(content["seconds"]) == {"prepare", "adapt", "load", "evaluate"}
    assert all(value > 0 for value in content["seconds"].values())
    assert content["average"] == pytest.approx(sum(t["accuracy"] for t in content["tasks"].values()) / 2)
    assert set(content["tasks"]["signs"]) == {
        "accuracy",
        "n",
        "expert",
        "pretrained",
        "normalized",
        "agreement",
        "entropy",
        "estimate",
        "estimate_low",
        "estimate_high",
        "ece",
        "nll",
        "brier",
    }
    signs = content["tasks"]["signs"]
    assert 0 <= signs["estimate_low"] <= signs["estimate"] <= signs["estimate_high"] <= 1
    assert signs["entropy"] > 0
    records = Journal(folder / "journal.jsonl").read()
    assert [r["step"] for r in records] == [0, 1, 2]
    assert set(records[0]) == {
        "step",
        "loss",
        "loss/digits",
        "loss/signs",
        "seconds",
        "seconds_loading",
        "peak_memory_bytes",
    }
    assert 0 < records[1]["seconds_loading"] < records[1]["seconds"]
    assert records[0]["loss"] == pytest.approx(records[0]["loss/digits"] + records[0]["loss/signs"])
    for name in ("config.yaml", "state.safetensors", "merged.safetensors", "checkpoints/last.ckpt"):
        assert (folder / name).exists()
    assert {p.name for p in (folder / "figures").iterdir()} == {
        "loss.png",
        "coefficients.png",
        "accuracy.png",
    }
    out = capsys.readouterr().out
    assert "arithmetic" in out
    assert "agrees" in out
    assert str(Path("outputs") / "mini" / "adamerging_layerwise") in out
    # The merged encoder is theta0 + sum lambda tau with the learned coefficients.
    assert results.trainable_parameters == load_file(folder / "state.safetensors")["merging.values"].numel()


def test_the_same_command_again_finds_the_finished_run(
    train: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, first = train("adamerging_taskwise")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    capsys.readouterr()
    again, second = train("adamerging_taskwise")
    assert again == folder
    assert first == second
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert "finished already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("surgery", "distance to the expert (mean absolute difference)"),
        ("tinting_pp", "cross-entropy to the expert (nats)"),
    ],
)
def test_a_run_notes_what_its_loss_is(train: Any, method: str, name: str) -> None:
    assert train(method, steps=1)[1].objective == name


def test_another_seed_is_another_run(train: Any, home: Path) -> None:
    train("adamerging_taskwise")
    train("adamerging_taskwise", "seed=1")
    assert len(list(home.glob("outputs/mini/adamerging_taskwise/*"))) == 2


def test_a_killed_run_goes_on_to_the_same_bits(home: Path, cache: Path, train: Any) -> None:
    whole, _ = train("adamerging_layerwise", "checkpoint_every=7", steps=30)
    elsewhere = home / "killed"
    elsewhere.mkdir()
    words = ["train", "method=adamerging_layerwise", "method.schedule.steps=30", *QUICK, "checkpoint_every=7"]
    command = [sys.executable, "-m", "adamerge", *words]
    environment = {
        **os.environ,
        "ADAMERGE_CACHE": str(cache),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    process = subprocess.Popen(command, cwd=elsewhere, env=environment, stdout=subprocess.DEVNULL)
    journal = _wait_for_lines(elsewhere, 10, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not finished(elsewhere)
    done = len(Journal(journal).read())
    assert 10 <= done < 30
    subprocess.run(command, cwd=elsewhere, env=environment, check=True, stdout=subprocess.DEVNULL)
    resumed = finished(elsewhere)["adamerging_layerwise"]
    for name in ("state.safetensors", "merged.safetensors"):
        ours, theirs = load_file(whole / name), load_file(resumed / name)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    losses = [[r["loss"] for r in Journal(f / "journal.jsonl").read()] for f in (whole, resumed)]
    assert losses[0] == losses[1]
    assert read_results(whole).tasks == read_results(resumed).tasks


def test_a_terminated_run_says_what_it_keeps_and_goes_on(home: Path, cache: Path) -> None:
    """By a real signal to a real process: Lightning has a handler of its own, after which the run looks finished."""
    words = ["train", "method=adamerging_taskwise", "method.schedule.steps=150", *QUICK, "checkpoint_every=7"]
    command = [sys.executable, "-m", "adamerge", *words]
    environment = {**os.environ, "ADAMERGE_CACHE": str(cache)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    journal = _wait_for_lines(home, 10, process)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 143, said
    run = journal.parent
    done = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["adamerge"]["step"]
    assert done >= 7
    assert done % 7 == 0
    assert f"{run.relative_to(home)}: {done} steps are kept; the same command goes on from there." in said
    assert said.endswith("Terminated by SIGTERM.\n")
    assert "Traceback" not in said
    assert (run / "error.txt").read_text().startswith(f"Terminated by SIGTERM: {done} steps are kept")
    assert not (run / "results.json").exists()
    seconds = [line["seconds"] for line in Journal(journal).read()][:done]
    main(words)
    records = Journal(journal).read()
    assert [line["step"] for line in records] == list(range(150))
    assert [line["seconds"] for line in records][:done] == seconds
    assert not (run / "error.txt").exists()


def _wait_for_lines(folder: Path, lines: int, process: subprocess.Popen) -> Path:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        for journal in folder.glob("outputs/*/*/*/journal.jsonl"):
            if journal.read_text().count("\n") >= lines:
                return journal
        time.sleep(0.01)
    raise AssertionError("the run did not get that far")


@pytest.mark.parametrize("rule", ["pretrained", "weight_average", "task_arithmetic", "ties", "individual"])
def test_every_rule_merges(home: Path, rule: str) -> None:
    main(["merge", f"rule={rule}", *QUICK[:3]])
    folder = finished(home)[rule]
    results = read_results(folder)
    assert results.rule == results.method == rule
    assert results.trainable_parameters == 0
    if rule in results.baselines:
        assert {t: r.accuracy for t, r in results.tasks.items()} == results.baselines[rule].accuracy
    if rule == "individual":
        assert results.agreement == 1.0
        assert results.normalized_average == 1.0
        assert not (folder / "merged.safetensors").exists()
    else:
        assert (folder / "merged.safetensors").exists()


def test_a_sweep_runs_methods_and_rules_side_by_side(home: Path) -> None:
    main(["train", "-m", "method=task_arithmetic,adamerging_taskwise_pp", *QUICK[:3], "suite.steps=2"])
    runs = finished(home)
    assert set(runs) == {"task_arithmetic", "adamerging_taskwise_pp"}
    assert read_results(runs["adamerging_taskwise_pp"]).rule == "ties"


def test_fusion_bench_preset_splits_the_attention(train: Any) -> None:
    folder, results = train("adamerging_layerwise_fb")
    layers = json.loads((folder / "coefficients.json").read_text())["layers"]
    assert sum("q_proj" in layer for layer in layers) == 2 * 4
    assert results.trainable_parameters == 2 * len(layers)


def test_evaluating_a_run_and_its_merged_encoder_gives_the_same_table(
    train: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = train("adamerging_layerwise")
    capsys.readouterr()
    main(["evaluate", f"run={folder}"])
    of_run = capsys.readouterr().out.split("normalized")[0]
    main(["evaluate", f"checkpoint={folder / 'merged.safetensors'}", *QUICK[:3]])
    of_file = capsys.readouterr().out.split("normalized")[0]
    names = ("digits", "signs", "average")
    rows = [
        [line for line in out.splitlines() if line.strip().startswith(names)] for out in (of_run, of_file)
    ]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 3


def test_a_corrupted_suite_is_adapted_and_evaluated_on_its_corrupted_pictures(
    train: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    clean_folder, clean = train("adamerging_taskwise")
    folder, results = train("adamerging_taskwise", "suite.corruption=contrast", "suite.severity=5")
    assert folder.parents[1].name == "mini-contrast"
    assert clean_folder.parents[1].name == clean.suite == "mini"
    assert results.suite == "mini, contrast 5"
    assert "on mini, contrast 5" in capsys.readouterr().out
    assert results.run_id != clean.run_id
    # Neither the baselines' predictions nor the losses are those of the clean pictures.
    for name in ("pretrained", "individual"):
        assert results.baselines[name].accuracy != clean.baselines[name].accuracy
    assert results.baselines["individual"].average < clean.baselines["individual"].average - 0.1
    first = [Journal(f / "journal.jsonl").read()[0]["loss"] for f in (clean_folder, folder)]
    assert first[0] != pytest.approx(first[1], rel=1e-3)
    # Evaluated once more from its folder, the run has the same pictures.
    main(["evaluate", f"run={folder}"])
    assert f"{100 * results.average:.1f}" in capsys.readouterr().out


def test_evaluate_needs_one_thing_to_evaluate(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["evaluate"])
    assert stop.value.code == 2
    assert "run=" in capsys.readouterr().err


def test_unlabeled_folders_of_images_give_the_agreement_only(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    from adamerge.tasks.mini import Mini

    for task in ("digits", "signs"):
        (home / "photos" / task).mkdir(parents=True)
        for index, pixels in enumerate(Mini(task).images("test")[:40]):
            Image.fromarray(pixels).save(home / "photos" / task / f"{index}.png")
    digits = "[zero,one,two,three,four,five,six,seven,eight,nine]"
    words = [
        "suite=folders", "suite.data=photos", "suite.tasks=[digits,signs]", "checkpoints=mini",
        f"+suite.catalogue.digits.classes={digits}", "+suite.catalogue.signs.classes=[stop,yield,parking]",
    ]  # fmt: skip
    main(["train", "method=adamerging_layerwise", "method.schedule.steps=2", *QUICK[1:], *words])
    results = read_results(finished(home)["adamerging_layerwise"])
    assert results.average is None
    assert all(task.accuracy is None and task.expert is None for task in results.tasks.values())
    assert results.agreement is not None
    assert 0 < results.agreement <= 1
    assert "–" in capsys.readouterr().out


def test_an_expert_of_another_architecture_is_named_before_any_work(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from adamerge.checkpoints import open_checkpoint, save_tensors
    from adamerge.settings.paths import PACKAGE

    state = open_checkpoint(PACKAGE / "zoo" / "mini" / "base").image_encoder()
    state["visual.conv1.weight"] = torch.zeros(128, 3, 16, 16)
    for task in ("digits", "signs"):
        save_tensors(home / f"{task}.safetensors", state)
    words = ["checkpoints.experts=./{task}.safetensors", "method=adamerging_layerwise", *QUICK]
    with pytest.raises(SystemExit) as stop:
        main(["train", *words])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    for part in ("PoolError", "digits", "signs", "visual.conv1.weight", "(128, 3, 16, 16)", "(128, 3, 8, 8)"):
        assert part in error
    assert not list(home.glob("outputs/*/*/*/results.json"))


def test_making_a_base_and_an_expert(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ADAMERGE_CACHE", str(home / "own"))
    quiet = ["trainer.enable_progress_bar=false", "trainer.accelerator=cpu", "warmup=1"]
    main(["pretrain", "suite.tasks=[digits,signs]", "steps=2", "batch_size=16", *quiet])
    main(["finetune", "suite.tasks=[digits,signs]", "steps=2", "batch_size=16", "logger=wandb", *quiet])
    for path in home.glob("outputs/mini/finetune/*"):
        (shown,) = (read(file) for file in path.glob("wandb/offline-run-*/*.wandb"))
        ((name, expert),) = shown.artifacts.items()
        assert (expert.type, name.split("-")[:2]) == ("expert", ["experts", path.name.partition("-")[0]])
        assert (shown.exit_code, len(shown.history)) == (0, 2)
    made = {p.name for p in (home / "own/zoo/mini/mini").rglob("*") if p.is_file() and p.suffix != ".sha256"}
    assert made == {
        "open_clip_config.json", "open_clip_model.safetensors", "digits.safetensors", "signs.safetensors"
    }  # fmt: skip
    main(["merge", "checkpoints=local", *QUICK[:3]])
    assert finished(home)["task_arithmetic"]


def test_rerun_begins_a_finished_run_anew_in_its_folder(
    train: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, first = train("adamerging_taskwise")
    (folder / "figures" / "old.png").write_text("")
    (folder / "notes.txt").write_text("the user's")
    again, second = train("adamerging_taskwise", "rerun=true")
    assert again == folder
    assert "begins anew: what was there is removed" in capsys.readouterr().out
    assert second.tasks == first.tasks
    assert second.seconds != first.seconds
    assert [r["step"] for r in Journal(folder / "journal.jsonl").read()] == [0, 1, 2]
    assert not (folder / "figures" / "old.png").exists()
    assert (folder / "notes.txt").exists()


def test_nothing_of_a_lock_is_left_and_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    from adamerge.errors import RunError
    from adamerge.tracking.lock import FILE, holder, locked

    held = (
        f"import sys, pathlib\nfrom adamerge.tracking.lock import locked\n"
        f"with locked(pathlib.Path({str(tmp_path)!r})):\n    print(1, flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", held], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    named = rf"in use by another run: process {process.pid} on .*, since 2"
    with pytest.raises(RunError, match=named), locked(tmp_path):
        pass
    assert holder(tmp_path).startswith(f"process {process.pid} on ")
    process.kill()
    process.wait()
    assert holder(tmp_path) is None
    with locked(tmp_path):
        assert (tmp_path / FILE).exists()
    assert not (tmp_path / FILE).exists()


def test_pictures_that_change_while_they_are_read_give_no_result(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from reports.inputs import digit_folders, on_folders

    from adamerge.runs import recipe

    words = ["merge", *on_folders(digit_folders(home / "data", 2))]
    evaluate = recipe.evaluate

    def meanwhile(*args: Any) -> Any:
        picture = next((home / "data").rglob("*.png"))
        picture.write_bytes(picture.read_bytes() + b"x")
        return evaluate(*args)

    monkeypatch.setattr(recipe, "evaluate", meanwhile)
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert (
        "The pictures or labels of digits, test changed while the run was reading" in capsys.readouterr().err
    )
    assert not finished(home)


def test_a_run_folder_does_not_serve_with_other_weights(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    from reports.inputs import digit_folders, on_folders
    from reports.report import EXPERTS

    expert = home / "expert.safetensors"
    shutil.copyfile(EXPERTS / "digits.safetensors", expert)
    main(["merge", *on_folders(digit_folders(home / "data", 2), f"checkpoints.experts={{digits: {expert}}}")])
    (folder,) = finished(home).values()
    assert json.loads((folder / "lineage.json").read_text())["data"]["digits"]["test"]["pictures"] == 20
    main(["evaluate", f"run={folder}"])
    shutil.copyfile(EXPERTS / "signs.safetensors", expert)
    with pytest.raises(SystemExit):
        main(["evaluate", f"run={folder}"])
    error = capsys.readouterr().err
    assert "was made with other weights than those that are here now: experts/digits" in error
    assert str(expert) in error


def test_an_own_method_edited_in_place_is_another_run(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = "from adamerge.methods import Static\n\n\nclass Mine(Static):\n    pass\n"
    (home / "mine_runs.py").write_text(source)
    monkeypatch.syspath_prepend(home)
    monkeypatch.setenv("ADAMERGE_MODULES", "mine_runs")
    words = ["merge", "method.model._target_=mine_runs.Mine", *QUICK[:3]]
    main(words)
    main(words)
    assert "finished already" in capsys.readouterr().out
    (home / "mine_runs.py").write_text(source + "    half = True\n")
    main(words)
    assert "has finished on other code: mine_runs" in capsys.readouterr().out
    assert len(list(home.glob("outputs/*/*/*/results.json"))) == 2


def test_a_start_has_the_baselines_of_every_other_run(train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from adamerge.evaluation import baselines
    from adamerge.runs import evaluating

    folder, _ = train("adamerging_layerwise")
    evaluated = []
    predict = evaluating.predict_logits

    def counted(*args: Any, **kwargs: Any) -> Any:
        evaluated.append(args[0])
        return predict(*args, **kwargs)

    for room in (evaluating, baselines):
        monkeypatch.setattr(room, "predict_logits", counted)
    read = []
    cached = baselines.cached

    def reading(*args: Any) -> Any:
        read.append(args[0])
        return cached(*args)

    monkeypatch.setattr(baselines, "cached", reading)
    train("surgery", f"start={folder}")
    assert len(evaluated) == 1  # the run's own; its four baselines are known
    assert len(read) == 4  # and read once, for the results and for what the folder keeps of them
