"""`choose=`: the chosen scale's run is that of the scale given directly, and what was tried stands in its results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from commands.conftest import QUICK, stored
from composing import settings as composed

from adamerge.__main__ import main
from adamerge.report.collect import collect
from adamerge.rules.ties import Ties
from adamerge.runs.rules import rule_of
from adamerge.runs.scales import at_scale, grid_of, own_scale, scale_option
from adamerge.tracking.results import Results, read_results

FEW = (*QUICK[:3], "++suite.limit=40")
GRID = (0.2, 0.4, 0.8)


def folders(home: Path) -> dict[str, Path]:
    """The run folders by whether they chose ("label_free", "labels") or not ("given")."""
    found: dict[str, Path] = {}
    for path in home.glob("outputs/mini/*/*/results.json"):
        choice = read_results(path.parent).choice
        found["given" if choice is None else choice.by] = path.parent
    return found


def choosing(by: str, images: int = 16) -> str:
    return f"choose={{by: {by}, grid: [{', '.join(map(str, GRID))}], images: {images}}}"


# The scale is the coefficient; a factor of the vectors; of the rule within; before what depends on it.
KINDS = {
    "ties": (("rule=ties",), "rule.scale"),
    "tsv_m": (("rule=tsv_m",), "rule.scale"),
    "dare_ta": (("rule=dare_ta",), "rule.then.scale"),
    "ties+svc": (("rule=ties", "post=svc"), "rule.scale"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_run_of_the_chosen_scale_to_the_bit(kind: str, home: Path) -> None:
    words, option = KINDS[kind]
    main(["merge", *words, choosing("label_free"), *FEW])
    chosen = folders(home)["label_free"]
    choice = read_results(chosen).choice
    assert choice is not None
    assert (choice.option, choice.split, choice.images) == (option, "test", {"digits": 16, "signs": 16})
    assert tuple(one.scale for one in choice.grid) == GRID
    assert choice.chosen == max(choice.grid, key=lambda one: (one.score, -one.scale)).scale
    given = f"{option}={choice.chosen}"
    main(["merge", *words, given, *FEW])
    other = folders(home)["given"]
    for file in ("merged.safetensors", "inference.safetensors"):
        assert stored(chosen / file) == stored(other / file), file
    assert read_results(chosen).average == read_results(other).average


@pytest.mark.parametrize(
    ("rule", "option", "own"), [("none", "rule.scale", 0.1), ("wise_ft", "rule.alpha", 0.5)]
)
def test_where_a_scale_stands(rule: str, option: str, own: float) -> None:
    settings = composed("train", "method=static", f"rule={rule}", "choose=labels")
    assert (scale_option(settings), own_scale(settings)) == (option, own)
    assert grid_of(settings) == tuple(round(0.1 * n, 1) for n in range(1, 11))
    coefficient = rule_of(at_scale(settings, 0.75)).coefficient(3)
    assert coefficient == (0.75 if rule == "none" else 0.25)
    assert rule_of(settings).coefficient(3) != coefficient


def test_labels_are_those_of_validation_pictures(home: Path) -> None:
    main(["train", "method=task_arithmetic", choosing("labels"), *FEW])
    results = read_results(folders(home)["labels"])
    assert results.choice is not None
    assert (results.chooser, results.protocol) == ("labels", "inductive")
    assert results.choice.split == "validation"
    for one in results.choice.grid:  # shares of 16 pictures
        assert all(share * 16 == int(share * 16) for share in one.tasks.values())


def test_scored_images_are_looked_at_only_where_the_suite_says_so(home: Path) -> None:
    words = ["merge", "rule=task_arithmetic", choosing("label_free"), *FEW]
    main(words)
    first = read_results(folders(home)["label_free"])
    assert (first.protocol, first.chooser) == ("transductive", "label_free")
    assert (first.adapted["signs"].n, first.held_out["signs"].n) == (16, 24)
    main([*words, "suite.adapt_on={share: 0.5}", "rerun=true"])
    halves: dict[str, Results] = {
        results.choice.split: results
        for path in home.glob("outputs/mini/*/*/results.json")
        if (results := read_results(path.parent)).choice is not None
    }
    other = halves["0.5 of test"]
    assert other.protocol == "inductive"
    assert (other.tasks["signs"].n, other.adapted["signs"].n) == (20, 16)


def test_the_rule_s_vectors_and_the_experts_predictions_are_made_once(
    home: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import adamerge.evaluation.baselines as baselines
    import adamerge.evaluation.choosing as module

    monkeypatch.setenv("ADAMERGE_CACHE", str(tmp_path / "new"))
    prepared, passed = [], []
    of_ties, references = Ties.prepare, baselines.predict_logits

    def prepare(self: Ties, vectors: Any) -> Any:
        prepared.append(vectors)
        return of_ties(self, vectors)

    def predicted(method: Any, images: Any, **options: Any) -> Any:
        passed.append(bool(method.by_task))
        return references(method, images, **options)

    monkeypatch.setattr(Ties, "prepare", prepare)
    monkeypatch.setattr(baselines, "predict_logits", predicted)
    main(["merge", "rule=ties", choosing("label_free"), *FEW])
    assert len(prepared) == 1
    assert sum(passed) == 1
    assert module.predict_logits is not predicted


def test_a_table_says_who_chose_and_the_choice_is_printed(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["merge", "rule=task_arithmetic", *FEW])
    main(["merge", "rule=task_arithmetic", choosing("label_free"), *FEW])
    printed = " ".join(capsys.readouterr().out.split())
    assert "was chosen among 3 by the experts' estimate on 16 images of each task, test:" in printed
    assert "0.2: " in printed
    assert "0.8: " in printed
    (comparison,) = collect([home / "outputs"]).comparisons
    assert sorted(group.name for group in comparison.groups) == [
        "task_arithmetic (choose=label_free)",
        "task_arithmetic (choose=prior)",
    ]
    main(["compare", str(home / "outputs")])
    assert "| scale chosen by |" in (home / "outputs/report/compare.md").read_text()


def test_a_finished_choice_is_evaluated_at_the_scale_that_it_chose(home: Path) -> None:
    main(["merge", "rule=ties", choosing("label_free"), *FEW])
    folder = folders(home)["label_free"]
    main(["evaluate", f"run={folder}", "out=again.json"])
    again = json.loads(Path("again.json").read_text())
    assert again["average"] == read_results(folder).average
    assert again["chooser"] == "label_free"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("merge", "rule=weight_average", "choose=labels"), "rule=weight_average has no scale to choose"),
        (("merge", "rule=negation", "choose=labels"), "rule=negation is to forget tasks"),
        (("merge", "rule=negation", "post=lines", "choose=labels"), "rule=negation is to forget tasks"),
        (("train", "method=surgery", "choose=label_free"), "method=surgery is trained"),
        (("merge", "rule=ties", "choose=label_free", "evaluate=false"), "judges merges on pictures"),
        (("merge", "rule=ties", "choose=label_free", "start=x.json"), "gives the coefficients already"),
        (("merge", "rule=wise_ft", "choose={by: labels, grid: [0.5, 1.5]}"), "rule.alpha=1.5 is none"),
        (("merge", "rule=ties", "choose={by: labels, grid: [0.5, 0.5]}"), "numbers that rise"),
        (("merge", "rule=ties", "choose={by: labels, gird: [0.5]}"), "did you mean 'grid'"),
        (("merge", "rule=ties", "choose=entropy"), "choose"),
    ],
)
def test_what_cannot_be_chosen_is_refused(
    words: tuple[str, ...], text: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*words, *FEW])
    assert stopped.value.code == 2
    assert text in " ".join(capsys.readouterr().err.split())
    assert not list(home.glob("outputs/**/results.json"))


def test_where_the_best_scale_is_known(home: Path) -> None:
    """Of one expert alone the merge at 1 is the expert."""
    words = ("suite.tasks=[signs]", *QUICK[1:3], "++suite.limit=40")
    main(["merge", "rule=task_arithmetic", "choose={by: label_free, grid: [0.25, 1.0, 3.0]}", *words])
    results = read_results(folders(home)["label_free"])
    assert results.choice is not None
    assert results.choice.chosen == 1.0
    assert results.average == results.tasks["signs"].expert
    assert torch.tensor(results.choice.grid[1].score) == pytest.approx(results.estimate, abs=1e-3)
