"""Classes of images whose task nobody told, against logits put side by side by hand; in any order and batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from conftest import CLASSES, TASKS, make_vit_pool
from torch import Tensor

import adamerge
from adamerge.evaluation.routed import Space, joint_logits, routed
from adamerge.merging import Pool
from adamerge.methods import Method
from adamerge.methods.static import Static
from adamerge.methods.surgery import Surgery
from adamerge.methods.surgery_v2 import SurgeryV2
from adamerge.methods.tinting import Tinting
from adamerge.methods.twin import Twin
from adamerge.methods.wemoe import WEMoE
from adamerge.routing.joint import Joint
from adamerge.routing.mass import Mass, prepare
from adamerge.routing.router import Router
from adamerge.routing.sim import SiM, subspaces
from adamerge.rules.emr import Emr
from adamerge.rules.linear import TaskArithmetic
from adamerge.rules.tall import Tall
from adamerge.rules.tsv_c import TsvC
from adamerge.tasks.images import ImageSet

CPU = torch.device("cpu")
METHODS: dict[str, Callable[[Pool], Method]] = {
    "one encoder": lambda pool: Static(TaskArithmetic(0.3)(pool)),
    "surgery": Surgery,
    "surgery_v2": SurgeryV2,
    "tinted heads": lambda pool: Tinting(pool, coefficients=None),
    "symerge": lambda pool: Tinting(pool, layer="visual.transformer.resblocks.1.mlp"),
    "emr": lambda pool: Static(Emr()(pool)),
    "tall": lambda pool: Static(Tall()(pool)),
    "tsv_c": lambda pool: Static(TsvC()(pool)),
    "twin": partial(Twin, hidden=8),
    "wemoe": lambda pool: WEMoE(TaskArithmetic(0.3)(pool)),
}


def made(name: str) -> tuple[Pool, Method]:
    """With parts that are no longer alike for all tasks."""
    pool = make_vit_pool()
    torch.manual_seed(2)
    method = METHODS[name](pool).eval()
    with torch.no_grad():
        for parameter in method.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return pool, method


def mixed(count: int = 30) -> Tensor:
    """Pixels (count, 3, 4, 4) of no task in particular."""
    generator = torch.Generator().manual_seed(4)
    return torch.randint(256, (count, 3, 4, 4), generator=generator).to(torch.uint8)


@dataclass(frozen=True)
class Chosen:
    """A router that knows the answer: by the first pixel, from one to three tasks."""

    tasks: tuple[str, ...] = TASKS

    def __call__(self, images: Tensor) -> Tensor:
        first = images[:, 0, 0, 0].long().unsqueeze(1)
        return (first + torch.arange(3)) % 3 <= (first % 2)

    def map(self, fn: Any) -> Chosen:
        return self


def routers(pool: Pool) -> dict[str, Router]:
    few = dict(zip(TASKS, mixed(12).split(4), strict=True))
    sim = SiM(pool.tasks, pool.encoder, pool.base, **subspaces(pool, few, device=CPU))
    return {
        "sim": sim,
        "mass": Mass.of(pool, prepare(pool)),
        "joint": Joint(pool.tasks),
        "chosen": Chosen(),
    }


@torch.no_grad()
def by_hand(method: Method, may_be: Tensor, pixels: Tensor) -> Tensor:
    """Image by image and task by task, each with its own pass."""
    found = []
    for row, image in zip(may_be, pixels, strict=True):
        own = [
            method.logits(image.unsqueeze(0), task)[0]
            if possible
            else torch.full((CLASSES[task],), float("-inf"))
            for task, possible in zip(TASKS, row, strict=True)
        ]
        found.append(torch.cat(own))
    return torch.stack(found)


@pytest.mark.parametrize("name", METHODS)
def test_each_task_has_its_own_part_and_head(name: str) -> None:
    _, method = made(name)
    pixels = mixed()
    for router in (Chosen(), Joint(TASKS)):
        found = joint_logits(method, router, ImageSet.of(pixels), device=CPU, batch_size=7)
        torch.testing.assert_close(found, by_hand(method, router(pixels), pixels), rtol=1e-4, atol=1e-4)
        assert found.isfinite().any(dim=1).all()


@pytest.mark.parametrize("name", ["one encoder", "surgery", "emr", "twin"])
@pytest.mark.parametrize("router", ["sim", "mass", "joint", "chosen"])
def test_what_else_is_in_a_batch_changes_no_prediction(name: str, router: str) -> None:
    pool, method = made(name)
    chosen, pixels = routers(pool)[router], mixed()

    def predicted(order: Tensor, batch_size: int) -> Tensor:
        logits = joint_logits(method, chosen, ImageSet.of(pixels[order]), device=CPU, batch_size=batch_size)
        return logits[order.argsort()]

    together = predicted(torch.arange(30), 30)
    for seed, batch_size in ((0, 30), (1, 4), (2, 1)):
        order = torch.randperm(30, generator=torch.Generator().manual_seed(seed))
        other = predicted(order, batch_size)
        assert other.argmax(dim=1).equal(together.argmax(dim=1))
        assert other.isfinite().equal(together.isfinite())
        torch.testing.assert_close(other, together, rtol=1e-4, atol=1e-4)


def test_one_pass_is_enough_where_tasks_differ_behind_the_encoder_alone() -> None:
    assert [name for name in METHODS if made(name)[1].one_pass] == [
        "one encoder",
        "surgery",
        "tinted heads",
        "wemoe",
    ]
    _, method = made("surgery")
    passes: list[int] = []
    encode = method.encode
    method.encode = lambda images, task=None: (passes.append(len(images)), encode(images, task))[1]  # type: ignore[method-assign,assignment,func-returns-value,return-value]
    joint_logits(method, Joint(TASKS), ImageSet.of(mixed()), device=CPU, batch_size=20)
    assert passes == [20, 10]


def test_scores_by_hand() -> None:
    """Two tasks of two and three classes; images of the second, whose columns are 2, 3 and 4."""
    space = Space({"a": 2, "b": 3})
    low = float("-inf")
    logits = torch.tensor(
        [
            [0.0, 0.0, 1.0, 3.0, 2.0],  # b1 > b2 > b0 > a0; its class is b2
            [9.0, 8.0, 1.0, 2.0, 3.0],  # a0 > a1 > b2 > b1 > b0
            [low, low, 1.0, 2.0, 3.0],  # b alone
            [5.0, 6.0, low, low, low],  # a alone
            [7.0, 7.0, 7.0, 7.0, 7.0],  # not scored
        ]
    )
    labels = torch.tensor([2, 0, 2, 0, 0])
    found = routed({"b": logits}, {"b": labels}, {"b": torch.arange(4)}, space, "no images")
    task = found.tasks["b"]
    assert (task.routed, task.accuracy, task.hits3, task.hits5, task.n) == (0.5, 0.25, 0.5, 0.75, 4)
    assert task.sent == {"a": 2, "b": 2}
    assert (found.average("hits5"), found.looks_at) == (0.75, "no images")
    unlabeled = routed({"b": logits}, {"b": None}, {"b": torch.tensor([0, 4])}, space, "").tasks["b"]
    assert (unlabeled.routed, unlabeled.accuracy, unlabeled.hits3, unlabeled.n) == (0.5, None, None, 2)
    assert unlabeled.sent == {"a": 1, "b": 1}  # of equal logits the first column counts


def test_the_joint_space_is_the_heads_one_below_the_other() -> None:
    """Of one encoder and zero-shot heads: one classifier with all their rows."""
    pool, method = made("one encoder")
    pixels = mixed()
    rows = torch.cat([pool.heads[task].weight for task in TASKS])
    with torch.no_grad():
        expected = torch.nn.functional.normalize(method.features(pixels), dim=-1) @ rows.T
    found = joint_logits(method, Joint(TASKS), ImageSet.of(pixels), device=CPU)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    space = Space.of(method)
    assert space.task_of().tolist() == [0] * 4 + [1] * 5 + [2] * 3
    assert (space.size, space.columns("digits")) == (12, slice(4, 9))


def test_where_the_task_is_found_the_class_is_that_of_its_own_head() -> None:
    pool, method = made("emr")
    router, pixels = routers(pool)["sim"], mixed()
    tasks = router(pixels).int().argmax(dim=1)
    best = joint_logits(method, router, ImageSet.of(pixels), device=CPU).argmax(dim=1)
    space = Space.of(method)
    for image, task, column in zip(pixels, tasks, best, strict=True):
        name = TASKS[int(task)]
        with torch.no_grad():
            own = method.logits(image.unsqueeze(0), name).argmax()
        assert int(column) == space.columns(name).start + int(own)
    assert len(tasks.unique()) > 1


def test_a_merge_by_hand_is_routed_as_the_method_is() -> None:
    """`adamerge.merge` for one task, and EMR's encoder of that task."""
    pool, method = made("emr")
    state = adamerge.merge(make_vit_pool(), "emr", "digits")
    with torch.no_grad():
        features = torch.func.functional_call(pool.encoder, state, (mixed(),))
        expected = pool.heads["digits"].logits(features)
    found = joint_logits(method, Joint(TASKS), ImageSet.of(mixed()), device=CPU)
    torch.testing.assert_close(found[:, 4:9], expected, rtol=1e-5, atol=1e-5)
