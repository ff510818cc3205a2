"""Runs on other pictures, experts or heads stand in tables of their own; other code is no further seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report.runs import TASKS, write_run

from adamerge.__main__ import main
from adamerge.report.choice import pick
from adamerge.report.collect import Collected, collect
from adamerge.report.comparison import lines, markdown
from adamerge.tracking.run_record import Lineage, Pictures, Weights, write_lineage


def run(
    root: Path, method: str, seed: int = 0, accuracy: float = 0.6, *,
    pictures: str = "p", expert: str = "e", head: str = "h", code: str = "c", start: str = "s",
) -> None:  # fmt: skip
    folder = write_run(root, method, seed, accuracy)
    uses = {
        "base": Weights("base.pt", "b"),
        "start": Weights("table.json", start),
        **{f"experts/{task}": Weights("x.pt", expert) for task in TASKS},
    }
    data = {task: {"test": Pictures(pictures, 10, "words")} for task in TASKS}
    lineage = Lineage(uses, data=data, heads=dict.fromkeys(TASKS, head), code={"adamerge": "0", "mine": code})
    write_lineage(folder, lineage)


def names(collected: Collected) -> list[list[str]]:
    return [[group.name for group in comparison.groups] for comparison in collected.comparisons]


@pytest.mark.parametrize(
    ("what", "kind"), [("pictures", "pictures"), ("expert", "experts"), ("head", "heads")]
)
def test_what_runs_rest_on_tells_tables_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str, kind: Any
) -> None:
    run(tmp_path, "surgery")
    other: dict[str, Any] = {what: "other"}
    run(tmp_path, "wemoe", **other)
    collected = collect([tmp_path])
    assert sorted(names(collected)) == [["surgery"], ["wemoe"]]
    assert all(comparison.apart.startswith(f"{kind} ") for comparison in collected.comparisons)
    main(["compare", str(tmp_path)])
    assert f"runs on other {kind} cannot be compared" in " ".join(capsys.readouterr().out.split())


def test_runs_on_the_same_share_a_table_and_one_that_does_not_say_has_its_own(tmp_path: Path) -> None:
    run(tmp_path, "surgery")
    run(tmp_path, "wemoe")
    write_run(tmp_path, "twin")
    assert sorted(names(collect([tmp_path]))) == [["surgery", "wemoe"], ["twin"]]
    assert {c.apart for c in collect([tmp_path]).comparisons if "twin" in c.groups[0].name} == {
        "pictures unknown, experts unknown, heads unknown"
    }


@pytest.mark.parametrize("what", ["code", "start"])
def test_a_method_or_start_edited_between_two_seeds_is_two_methods(tmp_path: Path, what: str) -> None:
    run(tmp_path, "mine", seed=0, accuracy=0.6, **{what: "before"})
    run(tmp_path, "mine", seed=7, accuracy=0.1, **{what: "after"})
    (comparison,) = collect([tmp_path]).comparisons
    assert [len(group.runs) for group in comparison.groups] == [1, 1]
    assert all(group.name.startswith(f"mine ({what}=") for group in comparison.groups)


def test_the_best_is_among_rows_of_as_many_seeds(tmp_path: Path) -> None:
    """One lucky seed does not beat a mean of three."""
    for seed in (0, 1, 2):
        run(tmp_path, "surgery", seed, 0.6)
        run(tmp_path, "twin", seed, 0.5)
    run(tmp_path, "wemoe", 0, 0.8)
    (comparison,) = collect([tmp_path]).comparisons
    marked = {line.name: line.best[0] for line in lines(comparison)}
    assert (marked["wemoe"], marked["surgery"], marked["twin"]) == (False, True, False)
    assert "**80" not in markdown(comparison)
    assert "wemoe" not in pick(comparison)
