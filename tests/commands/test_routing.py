"""The task unknown, through the command line: evaluated, compared and predicted by routers."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from commands.conftest import QUICK, finished
from commands.test_standing_alone import photos_in, weights_in
from reports.inputs import digit_folders, on_folders

from adamerge.__main__ import main
from adamerge.evaluation.predicting import predict_logits
from adamerge.evaluation.routed import joint_logits
from adamerge.runs.routing import routers_of
from adamerge.runs.trained import load_alone, run_in
from adamerge.tasks.images import ImageSet
from adamerge.tasks.mini import Mini
from adamerge.tracking.results import read_results

ALL = "routing=[sim,mass,joint]"
FEW = [*QUICK[:3], "suite.limit=60"]


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_a_run_is_evaluated_without_the_task_and_compared(
    home: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = [*QUICK, "suite.limit=60"]
    main(["train", "method=surgery", "method.schedule.steps=2", *quick, ALL])
    said = " ".join(capsys.readouterr().out.split())
    folder = finished(home)["surgery"]
    results = read_results(folder)
    assert set(results.routing) == {"sim", "mass", "joint"}
    assert [found.looks_at for found in results.routing.values()] == [
        "32 test images per task, transductive",
        "no images",
        "no images",
    ]
    content = json.loads((folder / "results.json").read_text())
    for name, found in results.routing.items():
        assert list(found.tasks) == ["digits", "signs"]
        for task, own in found.tasks.items():
            assert own.accuracy is not None
            assert own.hits3 is not None
            assert own.accuracy <= min(own.routed, own.hits3)
            assert own.n == sum(own.sent.values()) == 60
            assert own.sent[task] == round(60 * own.routed)
            assert own.accuracy <= results.tasks[task].accuracy
        assert content["routing_average"][name]["accuracy"] == pytest.approx(found.average("accuracy"))
        shown = f"task unknown, {name}: task found {100 * found.average('routed'):.1f}, accuracy "
        assert shown + f"{100 * found.average('accuracy'):.1f}" in said
    assert results.routing["sim"].average("routed") > 0.8  # digits and signs are told apart with ease
    # By logits: the joint space is all classes side by side, and the run's own task leaves its own.
    opened, method = load_alone(folder)
    _, data = opened.open()
    logits = predict_logits(method, data.images, **opened.passes)
    made = routers_of(opened, ["joint"], method.pool)["joint"]
    joint = joint_logits(method, made.router, data.images["signs"], **opened.passes)
    columns = joint[:, -logits["signs"].shape[1] :]
    torch.testing.assert_close(columns, logits["signs"], rtol=1e-4, atol=1e-4)
    # Later, by another word, and from what lies in the folder: the same numbers, and the table of all runs has them.
    main(["merge", *FEW])
    plain = finished(home)["task_arithmetic"]
    assert not read_results(plain).routing
    before = (plain / "results.json").read_bytes()
    main(["evaluate", f"run={plain}", "routing=[sim,joint]"])
    main(["evaluate", f"run={folder}", "routing=[sim]"])
    again = [json.loads(path.read_text()) for path in folder.glob("evaluations/*.json")]
    assert again[0]["routing"]["sim"] == content["routing"]["sim"]
    assert (plain / "results.json").read_bytes() == before
    capsys.readouterr()
    main(["compare", "outputs"])
    said = capsys.readouterr().out
    assert "task unknown" in said
    report = home / "outputs" / "report"
    table = (report / "compare.md").read_text()
    assert (
        "| method | router | task found | accuracy | task given | Hits@3 | Hits@5 | seeds | looks at |"
        in table
    )
    assert table.count("| sim |") == 2
    assert table.count("| mass |") == 1
    line = next(
        row for row in rows(report / "compare.csv") if (row["method"], row["task"]) == ("surgery", "signs")
    )
    assert float(line["mass_hits3"]) == pytest.approx(results.routing["mass"].tasks["signs"].hits3)
    assert "Task unknown" in (report / "report.html").read_text()
    # Asked for again, the finished run tells where it is to be had.
    main(["merge", *FEW, "routing=[mass]"])
    said = capsys.readouterr().out
    assert "not evaluated with routing by mass" in said
    assert f"evaluate run={plain.relative_to(home)} 'routing=[mass]'" in said


def test_other_pictures_are_routed_by_what_was_seen_of_the_run_s_own(
    home: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And an evaluation on them is none of the run's own in a comparison."""
    main(["merge", *FEW, "suite.adapt_on={share: 0.5}", "suite.adapt_images=8"])
    folder = finished(home)["task_arithmetic"]
    main(["evaluate", f"run={folder}", "suite.corruption=contrast", "routing=[sim]", "out=other.json"])
    kept = (folder / "routing.safetensors").read_bytes()
    main(["evaluate", f"run={folder}", "routing=[sim]", "out=own.json"])
    assert (folder / "routing.safetensors").read_bytes() == kept
    own, other = (
        json.loads((home / f"{name}.json").read_text())["routing"]["sim"] for name in ("own", "other")
    )
    assert own["looks_at"] == other["looks_at"] == "8 test images per task, inductive"
    assert {task["n"] for task in own["tasks"].values()} == {30}
    assert own["tasks"] != other["tasks"]
    (folder / "evaluations").mkdir()
    shutil.copy(home / "other.json", folder / "evaluations" / "0.json")
    capsys.readouterr()
    main(["compare", "outputs"])
    assert "task unknown" not in capsys.readouterr().out


def test_pictures_of_unknown_tasks_are_predicted(
    home: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["merge", "rule=emr", *FEW, *weights_in(home)])
    folder, photos = finished(home)["emr"], photos_in(home)
    predict = ["predict", f"run={folder}", f"images={photos}"]
    capsys.readouterr()
    main([*predict, "out=joint.csv", "top=2"])
    said = capsys.readouterr().out
    assert "task" in said
    opened = run_in(folder)
    pool, data = opened.open()
    _, method = load_alone(folder)
    images = ImageSet.of(torch.from_numpy(Mini("signs").images("test")[:12].copy()).permute(0, 3, 1, 2))
    names = {task.name: task.classes for task in data.tasks}
    columns = [(task, name) for task in method.pool.tasks for name in names[task]]
    for name, prefix in (("joint", True), ("sim", False), ("mass", False)):
        if name != "joint":
            main([*predict, f"out={name}.csv", "top=2", f"routing={name}"])
        router = routers_of(opened, [name], pool)[name].router
        shares = joint_logits(method, router, images, device=torch.device("cpu")).softmax(dim=1)
        found = rows(home / f"{name}.csv")
        assert list(found[0]) == ["file", "rank", "task", "class", "probability"]
        for row in found:
            value, order = shares[int(Path(row["file"]).stem)].sort(descending=True)
            place = int(row["rank"]) - 1
            task, word = columns[int(order[place])]
            assert (row["task"], row["class"]) == (task, f"{task}/{word}" if prefix else word)
            assert float(row["probability"]) == pytest.approx(float(value[place]), abs=1e-5)
    # What SiM keeps lies in the folder: without pictures, but not without the weights.
    assert (folder / "routing.safetensors").exists()
    shutil.rmtree(home / "weights")
    main([*predict, "out=alone.csv", "top=2", "routing=joint"])
    assert (home / "alone.csv").read_bytes() == (home / "joint.csv").read_bytes()
    for name in ("sim", "mass"):
        told = refused([*predict, f"routing={name}"], capsys)
        assert f"routing={name} needs the weights that the run was made from" in told
        assert "or give routing=joint, which needs the run folder alone" in told
        told = refused(["evaluate", f"run={folder}", f"routing=[{name}]"], capsys)
        assert f"routing={name} needs the" in told
    told = refused([*predict, "task=signs", "routing=joint"], capsys)
    assert "task=signs gives it. Leave out one of the two" in told


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ["merge", "rule=ties", "routing=[sim]", "evaluate=false", *QUICK[:3]],
            "routing=... is of an evaluation",
        ),
        (["merge", "routing=[sims]", *QUICK[:3]], "routing"),
        (["merge", "routing=[sim,sim]", *QUICK[:3]], "each router once"),
    ],
)
def test_what_cannot_be_routed_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str], words: list[str], text: str
) -> None:
    assert text in refused(words, capsys)


def test_sim_without_images_to_look_at_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = on_folders(digit_folders(home / "data", 3), "suite.adapt_on=train", "routing=[sim]")
    told = refused(["merge", *words], capsys)
    assert "routing=sim adapts on train images." in told
    assert not list(home.rglob("routing.safetensors"))
