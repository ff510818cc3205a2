"""What every method is before it has learned anything, and how many numbers it learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import TASKS
from restating import ADAM, QUIET, Given, arithmetic, expert, forward, images64, logits, pool64

from adamerge.merging import Coefficients, Head, Pool
from adamerge.methods import (
    DAM,
    AdaMerging,
    Concrete,
    ElementWise,
    FrankWolfe,
    FullFinetuning,
    SuperMerge,
    Surgery,
    SurgeryV2,
    Tinting,
    WEMoE,
    experts,
)
from adamerge.models.backbone import Backbone
from adamerge.objectives.alignment import Alignment
from adamerge.objectives.entropy import Entropy
from adamerge.rules.linear import TaskArithmetic
from adamerge.rules.ties import Ties
from adamerge.training import Adaptation, Schedule, run_steps

pytestmark = pytest.mark.usefixtures("double_precision")
STARTS = {
    "adamerging": AdaMerging,
    "surgery": Surgery,
    "surgery_v2": SurgeryV2,
    "tinting": Tinting,
    "tinting_block": lambda pool: Tinting(pool, "visual.transformer.resblocks.0"),
    "frank_wolfe": FrankWolfe,
    "supermerge": SuperMerge,
    "prodistill": ElementWise,
    "full": FullFinetuning,
    "wemoe_0": lambda pool: WEMoE(pool, 0),
}


@pytest.mark.parametrize("name", STARTS)
def test_at_first_it_is_task_arithmetic(name: Any) -> None:
    pool = pool64()
    method = STARTS[name](TaskArithmetic()(pool))
    for task, images in images64().items():
        expected = logits(pool.heads[task].weight, forward(arithmetic(pool), images)[1])
        with torch.no_grad():
            torch.testing.assert_close(method.logits(images, task), expected)


@pytest.mark.parametrize("method", [Surgery, SurgeryV2])
def test_surgery_stands_over_any_rule(method: Any) -> None:
    ruled = Ties(top_k=0.5)(pool64())
    state = ruled.static()
    for task, images in images64().items():
        with torch.no_grad():
            torch.testing.assert_close(method(ruled).features(images, task), forward(state, images)[1])


@pytest.mark.parametrize("method", [Concrete, lambda pool: DAM(pool, image_size=4)])
def test_concrete_with_a_constant_mask_is_task_arithmetic(
    method: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "adamerge.methods.concrete.uniform_noise", lambda like, *_: torch.full_like(like, 0.3)
    )
    pool = pool64()
    images = images64()["digits"]
    with torch.no_grad():
        features = method(TaskArithmetic()(pool)).features(images)
    torch.testing.assert_close(features, forward(arithmetic(pool), images)[1])


def test_teachers_are_the_experts_and_keep_one_model_at_a_time() -> None:
    pool = pool64()
    teachers = experts(pool, block_means=True)
    for task, images in images64().items():
        *means, feature = teachers.encode(images, task)
        expected_means, expected = forward(expert(pool, task), images)
        torch.testing.assert_close(feature, expected)
        for own, wanted in zip(means, expected_means, strict=True):
            torch.testing.assert_close(own, wanted)
    assert teachers._at_rest is not None
    assert teachers._at_rest[0] == TASKS[-1]


@pytest.mark.parametrize("objective", [Entropy(), Alignment()])
def test_fifty_steps_reduce_the_loss(objective: Any) -> None:
    torch.manual_seed(0)
    method = (AdaMerging if isinstance(objective, Entropy) else Surgery)(TaskArithmetic()(pool64()))
    module = Adaptation(method, objective, ADAM, Schedule(50, batch_size=4), None, experts(pool64()))
    run_steps(module, Given(images64()), 1, trainer=QUIET)
    first = module.record["loss"]
    run_steps(module, Given(images64()), 50, trainer=QUIET)
    assert module.record["loss"] < 0.8 * first


CLASSES = {
    "sun397": 397,
    "cars": 196,
    "resisc45": 45,
    "eurosat": 10,
    "svhn": 10,
    "gtsrb": 43,
    "mnist": 10,
    "dtd": 47,
}
BACKBONES = {"B/32": "ViT-B-32-quickgelu", "B/16": "ViT-B-16-quickgelu", "L/14": "ViT-L-14-quickgelu"}
# Rows of the table for the six text tensors that the published checkpoints carry and that never get a gradient.
DEAD_ROWS = 6


def meta_pool(model: str) -> Pool:
    encoder = Backbone.of(model).build()
    base = dict(encoder.state_dict())
    vectors = {key: torch.empty(8, value.numel(), device="meta") for key, value in base.items()}
    width = base["visual.proj"].shape[1]
    heads = {task: Head(torch.empty(count, width, device="meta")) for task, count in CLASSES.items()}
    return Pool(encoder, base, vectors, tuple(CLASSES), heads, coefficients=Coefficients.everywhere(0.3))


COUNTS = [  # method, on ViT-B, on ViT-L/14: the papers' tables of cost
    (lambda pool, large: AdaMerging(pool, "task"), 8, 8),
    (lambda pool, large: AdaMerging(pool), 1264 - 8 * DEAD_ROWS, 2416 - 8 * DEAD_ROWS),
    (lambda pool, large: Surgery(pool), 131_072, 196_608),
    (lambda pool, large: SurgeryV2(pool, 4 if large else 16), 2_490_368, 1_622_016),
    (lambda pool, large: Tinting(pool), 390_118 - 8 * DEAD_ROWS, 585_318 - 8 * DEAD_ROWS),
    (lambda pool, large: WEMoE(pool, 2), 7_160_928, 25_387_200),
    (lambda pool, large: WEMoE(pool, 1), 73_824, None),
    (lambda pool, large: WEMoE(pool, 0), 96, None),
    (lambda pool, large: WEMoE(pool, 2, shared_router=True), 596_744, 1_057_800),
    (lambda pool, large: WEMoE(pool, 1, shared_router=True), 6_152, None),
]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_trainable_counts_of_the_reference(backbone: Any) -> None:
    torch.set_default_dtype(torch.float32)
    pool, large = meta_pool(BACKBONES[backbone]), backbone == "L/14"
    for make, small_count, large_count in COUNTS:
        expected = large_count if large else small_count
        if expected is not None:
            with torch.device("meta"):
                assert make(pool, large).trainable_count() == expected
