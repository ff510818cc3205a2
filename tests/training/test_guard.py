"""The guard: the best state is kept, judged on images held back; nothing else changes; a resumed run is the same."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TASKS, make_vit_pool
from methods.test_contract import Rounds, StopAt
from torch import Tensor
from torch.nn.functional import one_hot

from adamerge.merging import Pool
from adamerge.methods import AdaMerging, Concrete, Method, WEMoE, experts
from adamerge.methods.concrete import Bilevel
from adamerge.methods.wemoe import gates_seen
from adamerge.objectives import Agreement
from adamerge.objectives.weighted_sum import WeightedSum
from adamerge.tracking.journal import Journal
from adamerge.training import Adaptation, Schedule, fit, run_steps
from adamerge.training.guard import Guard

TRAINER = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}
ASCEND = WeightedSum({"agreement": Agreement()}, {"agreement": -1.0})
STEPS = 12
MAKE = partial(AdaMerging, start=0.1, clamp=False)


def held_back(count: int = 16) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7)
    return {t: torch.randint(256, (count, 3, 4, 4), generator=generator, dtype=torch.uint8) for t in TASKS}


def judged_by_hand(pool: Pool, method: Method, images: dict[str, Tensor]) -> float:
    """Each image by itself, in float64: the probability that its expert gives to the predicted class."""
    teacher, tasks = experts(pool), []
    with torch.no_grad():
        for task, own in images.items():
            each = []
            for image in own:
                q = teacher.logits(image[None], task)[0].double().exp()
                each.append(float(q[method.logits(image[None], task)[0].argmax()] / q.sum()))
            tasks.append(sum(each) / len(each))
    return sum(tasks) / len(tasks)


def adapted(
    objective: Any = None,
    folder: Path | None = None,
    stop: int | None = None,
    guard: Guard | None = None,
    lr: float = 0.05,
    make: Any = MAKE,
    loop: Any = None,
) -> tuple[Method, Adaptation]:
    torch.manual_seed(0)
    method = make(make_vit_pool()).eval()
    optimizer = partial(torch.optim.Adam, lr=lr)
    schedule = Schedule(steps=STEPS, batch_size=8)
    teacher = experts(make_vit_pool())
    module = Adaptation(method, objective or Agreement(), optimizer, schedule, None, teacher, loop=loop)
    callbacks: list[Any] = [] if stop is None else [StopAt(stop)]
    run_steps(
        module, Rounds(TASKS, 8, False), STEPS, folder=folder, trainer=TRAINER, callbacks=callbacks,
        checkpoint_every=1, guard=guard,
    )  # fmt: skip
    return method.eval(), module


def looks(folder: Path) -> list[dict[str, Any]]:
    return [r for r in Journal(folder / "journal.jsonl").read() if "guard/estimate" in r]


def same(one: Method, other: Method) -> bool:
    return all(torch.equal(x, other.state_dict()[key]) for key, x in one.state_dict().items())


def agreeing(method: Method) -> dict[str, Tensor]:
    """Experts that are sure of what a model predicts: it is judged at 1, and nothing is better."""
    with torch.no_grad():
        logits = {task: method.logits(images, task) for task, images in held_back().items()}
    return {task: one_hot(own.argmax(-1), own.shape[1]).float() for task, own in logits.items()}


@pytest.mark.parametrize(("objective", "lr"), [(ASCEND, 0.5), (None, 1e3)])
def test_the_start_is_kept_where_adapting_harms(objective: Any, lr: float, tmp_path: Path) -> None:
    start = MAKE(make_vit_pool())
    guard = Guard(held_back(), agreeing(start), every=1, patience=3)
    method, module = adapted(objective, tmp_path, guard=guard, lr=lr)
    assert same(method, start)
    assert module.stopped
    assert module.step == 3
    last = looks(tmp_path)[-1]
    assert last["guard/kept"] == 0
    assert last["guard/best"] == last["guard/start"] == 1.0 > last["guard/estimate"]


def test_what_is_kept_is_the_best_of_what_was_seen(tmp_path: Path) -> None:
    pool, images = make_vit_pool(), held_back()
    start = MAKE(make_vit_pool())
    guard = Guard(images, pool, every=2, patience=STEPS)
    method, module = adapted(folder=tmp_path, guard=guard)
    found = looks(tmp_path)
    assert [r["step"] + 1 for r in found] == [2, 4, 6, 8, 10, 12]
    assert found[-1]["guard/start"] == pytest.approx(judged_by_hand(pool, start, images), rel=1e-5)
    assert found[-1]["guard/best"] == pytest.approx(judged_by_hand(pool, method, images), rel=1e-5)
    assert found[-1]["guard/best"] == max(r["guard/estimate"] for r in found) > found[-1]["guard/start"]
    firsts = [r for r in found if r["guard/estimate"] == found[-1]["guard/best"]]
    assert found[-1]["guard/kept"] == firsts[0]["step"] + 1  # of equal ones the earlier
    assert not module.stopped


def test_looking_changes_no_round(tmp_path: Path) -> None:
    """Dropout would notice another random number; the losses are those of a run that nobody looks at."""
    make = partial(WEMoE, start=0.1)
    for name, guard in (("a", None), ("b", Guard(held_back(), make_vit_pool(), every=1, patience=99))):
        adapted(folder=tmp_path / name, guard=guard, make=make)
    losses = [[r["loss"] for r in Journal(tmp_path / n / "journal.jsonl").read()] for n in "ab"]
    assert losses[0] == losses[1]


def judgements_in(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if k.startswith(("step", "guard/"))} for r in looks(folder)]


@pytest.mark.parametrize(("objective", "stop"), [(None, 3), (None, 4), (ASCEND, 4)])
def test_a_resumed_run_keeps_the_same_state(objective: Any, stop: int, tmp_path: Path) -> None:
    """Killed between two looks, at one, and at the one that ends the training."""
    start = MAKE(make_vit_pool())

    def guard() -> Guard:
        certain = make_vit_pool() if objective is None else agreeing(start)
        return Guard(held_back(), certain, every=2, patience=2)

    whole, module = adapted(objective, tmp_path / "whole", guard=guard())
    with pytest.raises(ConnectionAbortedError):
        adapted(objective, tmp_path / "cut", stop=stop, guard=guard())
    resumed, again = adapted(objective, tmp_path / "cut", guard=guard())
    assert same(resumed, whole)
    assert again.step == module.step
    assert again.stopped == module.stopped
    assert judgements_in(tmp_path / "cut") == judgements_in(tmp_path / "whole")


@pytest.mark.parametrize("objective", [None, ASCEND])
def test_a_finished_training_that_is_opened_again_is_the_same(objective: Any, tmp_path: Path) -> None:
    """Killed between the training and results.json."""
    whole, module = adapted(
        objective, tmp_path, guard=Guard(held_back(), make_vit_pool(), every=2, patience=2)
    )
    told = looks(tmp_path)
    again, other = adapted(
        objective, tmp_path, guard=Guard(held_back(), make_vit_pool(), every=2, patience=2)
    )
    assert same(again, whole)
    assert other.step == module.step
    assert looks(tmp_path) == told


def test_a_stage_that_others_build_on_is_not_judged(tmp_path: Path) -> None:
    make = partial(Concrete, start=0.1, train_coefficients=True)
    loop = partial(Bilevel, meta_steps=8)
    guard = Guard(held_back(), make_vit_pool(), every=2, patience=1)
    adapted(folder=tmp_path, guard=guard, make=make, loop=loop)
    assert next(r["step"] + 1 for r in looks(tmp_path)) == 10


def test_fit_takes_one() -> None:
    rounds = Rounds(TASKS, 8, False)
    method = fit(
        MAKE(make_vit_pool()),
        [rounds[i] for i in range(6)],
        optimizer=partial(torch.optim.Adam, lr=0.5),
        schedule={"steps": 6, "batch_size": 8},
        objective=ASCEND,
        teacher=make_vit_pool(),
        guard=Guard(held_back(), agreeing(MAKE(make_vit_pool())), every=1, patience=2),
        trainer={"accelerator": "cpu"},
    )
    assert same(method, MAKE(make_vit_pool()))


def test_a_class_that_takes_over_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Ascending, a task ends at one class, and is told of in the journal and on the console when it does."""
    adapted(ASCEND, tmp_path, guard=Guard(held_back(), make_vit_pool(), every=1, patience=99), lr=0.5)
    noted = [key for r in looks(tmp_path) for key in r if key.startswith("collapse/")]
    told = [r.getMessage() for r in caplog.records if "Collapse" in r.getMessage()]
    assert len(noted) == len(told) < STEPS
    assert noted
    assert "of the predictions are class" in told[0]


def test_gates_are_those_of_every_router() -> None:
    method = WEMoE(make_vit_pool(), start=0.1)
    with gates_seen(method) as gates, torch.no_grad():
        method.logits(held_back(5)["signs"], "signs")
    assert [tuple(g.shape) for g in gates] == [(5, len(TASKS))] * 2
    with gates_seen(AdaMerging(make_vit_pool())) as gates:
        pass
    assert gates == []


@pytest.mark.parametrize("options", [{"every": 0}, {"patience": 0}])
def test_every_and_patience_are_numbers_of_rounds(options: Any) -> None:
    with pytest.raises(ValueError, match="should be 1 at least"):
        Guard(held_back(), make_vit_pool(), **options)
    with pytest.raises(ValueError, match="each task needs an image"):
        Guard({}, make_vit_pool())
