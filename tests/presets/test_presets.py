"""The presets hold the numbers of the papers' code (presets.yaml, elsewhere.yaml), all of them and no others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from composing import opened
from presets.composed import Flat, composed, options

from adamerge.settings.groups import choices, method_names

HERE = Path(__file__).parent
TABLE: dict[str, Any] = yaml.safe_load((HERE / "presets.yaml").read_text())
ELSEWHERE: list[Any] = yaml.safe_load((HERE / "elsewhere.yaml").read_text())
# What the program gives to a component, and not a config.
GIVEN = ("training.indices", "training.teacher", "training.labeled", "schedule.seed")


def row(name: str) -> Flat:
    """A row with what it takes from others."""
    own = dict(TABLE[name])
    own.pop("with", None)
    below = row(own.pop("like")) if "like" in own else {}
    for key in own.pop("without", ()):
        del below[key]
    return {**below, **own}


def names(group: str) -> list[str]:
    return sorted(choices(group))


@pytest.fixture(scope="module", autouse=True)
def hydra() -> Iterator[None]:
    with opened():
        yield


def test_every_method_has_a_row() -> None:
    assert method_names() == sorted(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_a_preset_is_what_the_papers_code_has(name: str) -> None:
    found = options(composed(f"method={name}", *TABLE[name].get("with", ())))
    assert {k: v for k, v in found.items() if k not in GIVEN} == row(name)


@pytest.mark.parametrize("name", names("rule"))
def test_a_rule_is_what_the_papers_code_has(name: str) -> None:
    """Chosen as rule=<name>; the row is that of the method of the same name, or of AdaMerging after the rule."""
    found = options(composed("method=static", f"rule={name}"))
    wanted = row("static" if name == "none" else name)
    assert {k: v for k, v in found.items() if k.startswith("rule")} == {
        k: v for k, v in wanted.items() if k.startswith("rule")
    }


@pytest.mark.parametrize(("name", "words", "wanted"), ELSEWHERE)
def test_what_depends_on_encoder_experts_and_tasks(name: str, words: list[str], wanted: Flat) -> None:
    found = options(composed(f"method={name}", *words))
    assert {key: found[key] for key in wanted} == wanted
    # Nothing else than these, the customary coefficient and TIES' size differs from the row.
    free = {"rule.reference_size", "rule.scale", "model.start", "model.coefficients.start", *wanted}
    assert {k: v for k, v in found.items() if k not in (*GIVEN, *free)} == {
        k: v for k, v in row(name).items() if k not in free
    }


@pytest.mark.parametrize(
    ("suite", "tasks", "prior"), [("eight", 8, 0.3), ("fourteen", 14, 0.1), ("twenty", 20, 0.1)]
)
def test_the_papers_suites_change_no_schedule(suite: str, tasks: int, prior: float) -> None:
    cfg = composed(f"suite={suite}")
    assert (len(cfg.suite.tasks), cfg.suite.prior) == (tasks, prior)
    assert not {"steps", "lr", "tuned", "forward_images"} & set(cfg.suite)


def test_twenty_tasks_of_fusion_bench_have_its_letters() -> None:
    """Its EMNIST expert is of the letters, TALL masks' and SyMerge's are of the digits."""
    with_letters = composed("suite=twenty", "checkpoints=fusion_bench")
    assert list(with_letters.suite.tasks)[-2:] == ["emnist_letters", "kmnist"]
    for family in ("tall_masks", "tinting"):
        assert list(composed("suite=twenty", f"checkpoints={family}").suite.tasks)[-2:] == [
            "emnist",
            "kmnist",
        ]


def test_cart_takes_its_task_vectors_about_the_mean() -> None:
    averaged = [name for name in method_names() if composed(f"method={name}").origin != "base"]
    assert averaged == ["adamerging_guided_cart", "cart"]
    assert composed("method=adamerging_guided_cart", "origin=base").origin == "base"
