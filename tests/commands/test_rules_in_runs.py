"""Post-rules, the origin, and rules that look at images, through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from commands.conftest import QUICK
from safetensors.torch import load_file

from adamerge.__main__ import main
from adamerge.report.collect import collect
from adamerge.tracking.results import read_results
from adamerge.tracking.run_record import read_lineage

FEW = (*QUICK[:3], "++suite.limit=24")


def runs(home: Path, name: str) -> list[Path]:
    """The finished runs of a name, the earliest first."""
    found = home.glob(f"outputs/mini/{name}/*/results.json")
    return [path.parent for path in sorted(found, key=lambda path: path.stat().st_mtime_ns)]


def table(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "coefficients.json").read_text()))


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main([*words, *FEW])
    assert stopped.value.code == 2
    return capsys.readouterr().err


def no_pass(kind: str, pool: Any, name: str, *rest: Any, **passes: Any) -> None:
    raise AssertionError(f"{kind} of {name} is collected")


def test_post_rules_are_of_the_run_and_written_alike_from_files(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for posts in ("lines", "[lines,svc]", "[svc,lines]"):
        words = ["merge", "rule=ties", f"post={posts}", "post.lines.beta=0.3", *FEW]
        main([*words, "evaluate=false"])
        main(words)
    names = ("ties+lines", "ties+lines+svc", "ties+svc+lines")
    bytes_of = []
    for name in names:
        (evaluated,) = runs(home, name)
        (alone,) = [
            f.parent for f in home.glob(f"outputs/mini/{name}/*/config.yaml") if f.parent != evaluated
        ]
        bytes_of.append((evaluated / "merged.safetensors").read_bytes())
        assert (alone / "merged.safetensors").read_bytes() == bytes_of[-1]
        assert (read_results(evaluated).method, read_results(evaluated).rule) == (name, name)
    assert len(set(bytes_of)) == 3
    # The order of post-rules tells two runs apart.
    assert len({f.parent.name for f in home.glob("outputs/mini/*/*/results.json")}) == 3
    capsys.readouterr()
    assert "post: no post 'line'; did you mean 'lines'" in refused(capsys, "merge", "post=line")
    assert "Lines has no such option; did you mean 'beta'" in refused(
        capsys, "merge", "rule=ties", "post=lines", "post.lines.bta=1"
    )
    assert "post.svc: alpha is the least answer" in refused(
        capsys, "merge", "post=svc", "post.svc.alpha=-1.0"
    )


def test_a_method_starts_where_the_post_rule_s_merge_stands(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["merge", "rule=ties", "post=svc", *FEW])
    main(["train", "method=adamerging_layerwise", "rule=ties", "post=svc", "method.schedule.steps=0", *FEW])
    main(["train", "method=adamerging_layerwise", "rule=ties", "method.schedule.steps=0", *FEW])
    (merged,), (started, plain) = runs(home, "ties+svc"), runs(home, "adamerging_layerwise")
    for key, value in load_file(merged / "merged.safetensors").items():
        torch.testing.assert_close(load_file(started / "merged.safetensors")[key], value)
    assert table(started)["tasks"] == ["digits", "signs"]
    assert table(started)["values"] == [pytest.approx([0.3, 0.3])] * len(table(started)["layers"])
    # Without a post-rule they start at the suite's prior, and a table tells which is which.
    assert table(plain)["values"] == [pytest.approx([0.1, 0.1])] * len(table(plain)["layers"])
    named = [group.name for group in collect([started, plain]).comparisons[0].groups]
    assert sorted(name.partition("post=")[2].partition(",")[0].rstrip(")") for name in named) == [
        "none",
        "svc",
    ]


def test_one_method_over_two_rules_is_told_apart(home: Path) -> None:
    for rule in ("none", "ties"):
        main(["train", "method=adamerging_layerwise", f"rule={rule}", "method.schedule.steps=1", *FEW])
    groups = collect(runs(home, "adamerging_layerwise")).comparisons[0].groups
    assert sorted(group.name for group in groups) == [
        "adamerging_layerwise (rule=none)",
        "adamerging_layerwise (rule=ties)",
    ]


def test_a_rule_of_one_delta_gets_one_coefficient_per_layer(home: Path) -> None:
    """Its type says so; they start where the merge stands, not at the prior of task vectors."""
    main(["merge", "rule=regmean", *FEW])
    words = ["train", "method=adamerging_layerwise", "rule=regmean", *FEW]
    main([*words, "method.schedule.steps=0"])
    main([*words, "method.schedule.steps=2"])
    main(["train", "method=adamerging_taskwise", "rule=regmean", "method.schedule.steps=2", *FEW])
    (merged,), (start, learned) = runs(home, "regmean"), runs(home, "adamerging_layerwise")
    for key, value in load_file(merged / "merged.safetensors").items():
        torch.testing.assert_close(load_file(start / "merged.safetensors")[key], value)
    found = table(learned)
    assert found["tasks"] == ["merged"]
    assert {len(row) for row in found["values"]} == {1}
    assert len(found["layers"]) == len(table(start)["layers"]) > 50
    assert read_results(learned).trainable_parameters == len(found["layers"])
    assert yaml.safe_load((learned / "config.yaml").read_text())["method"]["model"]["start"] is None
    assert min(row[0] for row in found["values"]) < 1.0 == table(start)["values"][0][0]
    (task_wise,) = runs(home, "adamerging_taskwise")
    assert table(task_wise)["layers"] == ["all"]


def test_a_rule_that_looks_at_images_says_which(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["merge", "rule=regmean", *FEW]
    main(words)
    (of_train,) = runs(home, "regmean")
    assert read_results(of_train).protocol == "inductive"
    assert set(read_lineage(of_train).data["digits"]) == {"test", "train"}
    assert read_results(of_train).adapted == {}
    main([*words, "rule.adapt_on=test", "rule.images=8"])
    of_test = runs(home, "regmean")[1]
    found = read_results(of_test)
    assert found.protocol == "transductive"
    assert {part.n for part in found.adapted.values()} == {8}
    assert {part.n for part in found.held_out.values()} == {16}
    main([*words, "rule.adapt_on=null", "suite.adapt_on={share: 0.5}"])
    assert read_results(runs(home, "regmean")[2]).protocol == "inductive"
    # What a method below sees counts as well.
    main(["train", "method=adamerging_taskwise", "rule=regmean", "method.schedule.steps=1", *FEW])
    assert read_results(runs(home, "adamerging_taskwise")[0]).protocol == "transductive"
    # The statistics are kept: the same images are not passed again.
    monkeypatch.setattr("adamerge.runs.statistics.collect", no_pass)
    main([*words, "rule.shrink=0.5"])
    assert read_results(runs(home, "regmean")[3]).average != read_results(of_train).average
    capsys.readouterr()
    assert "rule=regmean learns from images" in refused(capsys, "merge", "rule=regmean", "evaluate=false")
    assert "rule=ties looks at no images" in refused(capsys, "merge", "rule=ties", "rule.images=3")


def test_fisher_information_is_kept_by_images_expert_and_head(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["merge", "rule=fisher", "rule.images=4", *FEW]
    main(words)
    (folder,) = runs(home, "fisher")
    assert read_results(folder).protocol == "inductive"
    monkeypatch.setattr("adamerge.runs.statistics.collect", no_pass)
    main([*words, "rule.floor=1.0e-3"])
    assert (runs(home, "fisher")[1] / "merged.safetensors").read_bytes() != (
        folder / "merged.safetensors"
    ).read_bytes()
    # Another head predicts otherwise.
    heads = ["checkpoints.heads=prototypes", "checkpoints.shots=2"]
    with pytest.raises(AssertionError, match="fisher of digits is collected"):
        main([*words, *heads])
    capsys.readouterr()
    assert "floor is added" in refused(capsys, "merge", "rule=fisher", "rule.floor=0.0")
    assert "rule=fisher learns from images" in refused(capsys, "merge", "rule=fisher", "evaluate=false")


def test_a_post_rule_that_looks_at_images_behind_any_rule(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["merge", "post=aim", "post.aim.images=4", *FEW]
    main([*words, "rule=ties"])
    (folder,) = runs(home, "ties+aim")
    assert read_results(folder).protocol == "inductive"
    assert set(read_lineage(folder).data["digits"]) == {"test", "train"}
    # The base's activations are kept: another rule or option passes no image again.
    monkeypatch.setattr("adamerge.runs.statistics.collect", no_pass)
    main([*words, "rule=ties", "post.aim.omega=0.2"])
    main(["evaluate", f"run={folder}", "out=again.json"])
    tasks = json.loads((folder / "results.json").read_text())["tasks"]
    assert json.loads(Path("again.json").read_text())["tasks"] == tasks
    with pytest.raises(AssertionError, match="gram of digits is collected"):
        main([*words, "rule=regmean", "rule.images=4"])
    capsys.readouterr()
    assert "rule=ties+aim learns from images" in refused(
        capsys, "merge", "rule=ties", "post=aim", "evaluate=false"
    )
    assert "omega is the share" in refused(capsys, "merge", "post=aim", "post.aim.omega=2.0")
    assert "rule.images: rule=ties looks at no images" in refused(
        capsys, "merge", "rule=ties", "post=aim", "rule.images=3"
    )
    assert "post.lines.images: post.lines looks at no images" in refused(
        capsys, "merge", "rule=ties", "post=lines", "+post.lines.images=3"
    )
    assert "rule.images=3, post.aim.images=256.\n  Give all of them one value" in refused(
        capsys, "merge", "rule=regmean", "rule.images=3", "post=aim"
    )
    assert "about another" in refused(capsys, "merge", "rule=ties", "post=aim", "origin=average")


def test_featcal_goes_on_from_the_coefficients_that_a_run_learned(home: Path) -> None:
    """With its anchor at the merge, and pulled to it by all its might, it gives that merge back."""
    main(["train", "method=adamerging_layerwise", "rule=ties", "method.schedule.steps=1", *FEW])
    (run,) = runs(home, "adamerging_layerwise")
    options = ["post.featcal.images=4", "post.featcal.anchor=1.0"]
    words = ["merge", "rule=ties", "post=featcal", *options, *FEW, f"start={run}"]
    main([*words, "post.featcal.ridge=1e9"])
    main(words)
    still, calibrated = runs(home, "ties+featcal")
    started, kept, moved = (load_file(path / "merged.safetensors") for path in (run, still, calibrated))
    assert max(float((kept[key] - value).abs().max()) for key, value in started.items()) < 1e-5
    assert max(float((moved[key] - value).abs().max()) for key, value in started.items()) > 1e-3


def test_an_evaluated_run_of_such_a_rule_is_itself_again(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["train", "method=adamerging_layerwise", "rule=regmean", "method.schedule.steps=1", *FEW])
    (folder,) = runs(home, "adamerging_layerwise")
    main(["evaluate", f"run={folder}", "out=again.json"])
    again = json.loads(Path("again.json").read_text())
    assert again["tasks"] == json.loads((folder / "results.json").read_text())["tasks"]


def test_task_vectors_about_the_average(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["merge", "rule=ties", "origin=average", *FEW])
    main(["merge", "rule=ties", *FEW])
    words = ["train", "method=adamerging_layerwise", "method.schedule.steps=1", *FEW]
    main([*words, "origin=average"])
    about, base = runs(home, "ties")
    assert (read_results(about).origin, read_results(base).origin) == ("average", "base")
    assert (read_lineage(about).origin, read_lineage(base).origin) == ("average", "base")
    names = {group.name for group in collect([about, base]).comparisons[0].groups}
    assert names == {"ties (origin=average)", "ties (origin=base)"}
    (learned,) = runs(home, "adamerging_layerwise")
    assert table(learned)["origin"] == "average"
    main(["evaluate", f"run={about}", "out=again.json"])
    tasks = json.loads((about / "results.json").read_text())["tasks"]
    assert json.loads(Path("again.json").read_text())["tasks"] == tasks
    main(["merge", "rule=ties", "origin=average", "evaluate=false", *FEW])
    (alone,) = [
        f.parent
        for f in home.glob("outputs/mini/ties/*/merged.safetensors")
        if not (f.parent / "results.json").exists()
    ]
    merged = (about / "merged.safetensors").read_bytes()
    assert (alone / "merged.safetensors").read_bytes() == merged
    capsys.readouterr()
    for rule in (
        "pretrained",
        "individual",
        "weight_average",
        "task_arithmetic",
        "none",
        "regmean",
        "fisher",
    ):
        assert "task vectors sum to zero" in refused(capsys, "merge", f"rule={rule}", "origin=average")
    assert "task vectors sum to zero" in refused(
        capsys, "merge", "rule=task_arithmetic", "origin=average", "evaluate=false"
    )
    assert "task vectors sum to zero" in refused(capsys, "train", "method=surgery", "origin=average")
    assert "origin=base, or another post" in refused(
        capsys, "merge", "rule=ties", "post=lines", "origin=average"
    )
    assert "with origin=average; here it is origin=base" in refused(capsys, *words[:3], f"start={learned}")
