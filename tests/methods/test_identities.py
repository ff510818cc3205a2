"""What every method is before it has learned anything, and how many numbers it learns."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import TASKS, make_vit_pool
from restating import arithmetic, expert, forward, images64, logits, pool64
from torch import Tensor

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
    Twin,
    WEMoE,
    experts,
)
from adamerge.models.backbone import Backbone
from adamerge.objectives.agreement import PseudoLabels, confident
from adamerge.objectives.alignment import Alignment
from adamerge.objectives.entropy import Entropy
from adamerge.rules.linear import TaskArithmetic
from adamerge.rules.ties import Ties
from adamerge.training import Adaptation, Schedule, run_steps

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


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[Any]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


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


@pytest.mark.parametrize("shared", [False, True])
def test_wemoe_without_weights_in_the_gate_is_task_arithmetic(shared: bool) -> None:
    pool = pool64()
    method = WEMoE(TaskArithmetic()(pool), 2, shared_router=shared)
    for router in method.routers:
        torch.nn.init.zeros_(router.fc2.weight)
    images = images64()["digits"]
    with torch.no_grad():
        torch.testing.assert_close(method.features(images), forward(arithmetic(pool), images)[1])


def test_pruning_keeps_the_largest_entries_of_each_task_vector() -> None:
    pool = pool64()
    key = "visual.transformer.resblocks.0.mlp.c_fc.weight"
    kept = WEMoE(TaskArithmetic()(pool), prune=0.75).pool.vectors[key]
    assert (kept != 0).sum(dim=1).tolist() == [kept.shape[1] // 4] * len(TASKS)
    for row, original in zip(kept, pool.vectors[key], strict=True):
        assert row.abs()[row != 0].min() > original.abs()[row == 0].max()
    assert torch.equal(WEMoE(TaskArithmetic()(pool)).pool.vectors[key], pool.vectors[key])


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


def test_twin_with_one_expert_and_full_rank_is_that_expert() -> None:
    pool = pool64()
    method = Twin(TaskArithmetic()(pool), rank_share=1.0).eval()
    method.route = lambda features: torch.tensor([-1e9, 0.0, -1e9]).expand(len(features), -1)
    images = images64()["signs"]
    torch.testing.assert_close(method.features(images, "signs"), forward(expert(pool, "digits"), images)[1])


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


# The confidence filter (arXiv 2412.19098): probabilities of two classes, chosen by hand.
CASES = {
    "agree, student surer": ([0.9, 0.1], [0.6, 0.4], True),
    "disagree, teacher surer": ([0.6, 0.4], [0.1, 0.9], True),
    "disagree, equally sure": ([0.8, 0.2], [0.2, 0.8], True),
    "disagree, student surer": ([0.9, 0.1], [0.4, 0.6], False),
}


@pytest.mark.parametrize("case", CASES)
def test_confidence_filter(case: Any) -> None:
    own, teacher, kept = CASES[case]
    assert confident(torch.tensor([own]).log(), torch.tensor([teacher]).log()).tolist() == [kept]


class _Answers:
    """A classifier whose features are its logits, with the identity as the teacher's head."""

    def __init__(self) -> None:
        self.pool = SimpleNamespace(heads={"digits": Head(torch.eye(2))})

    def classify(self, features: Any, task: Any) -> Any:
        return features


def test_nothing_confident_is_no_loss_and_no_update() -> None:
    sure, unsure = torch.tensor([[5.0, 0.0]]), torch.tensor([[0.0, 0.1]])
    assert PseudoLabels(confidence=True)(_Answers(), (sure,), "digits", (unsure,)) is None
    assert PseudoLabels(confidence=False)(_Answers(), (sure,), "digits", (unsure,)) is not None

    class Never(PseudoLabels):
        def __call__(self, *args: Any) -> Tensor | None:
            return None

    never: Any = Never()
    method = Tinting(TaskArithmetic()(pool64()))
    before = {key: value.clone() for key, value in method.state_dict().items()}
    module = Adaptation(
        method, never, _ADAM, Schedule(2, batch_size=4, update="task"), None, experts(pool64())
    )
    run_steps(module, _Same(), 2, trainer=_QUIET)
    assert all(torch.equal(before[key], value) for key, value in method.state_dict().items())
    assert module.record["loss"] == 0.0


_QUIET = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}


def _ADAM(parameters: Any) -> Any:
    return torch.optim.Adam(parameters, lr=1e-2)


class _Same(torch.utils.data.Dataset):
    def __getitem__(self, step: Any) -> Any:
        return images64()


@pytest.mark.parametrize("zero_fill", [True, False])
def test_zero_filled_gradients_let_momentum_leak_to_the_other_tasks(zero_fill: bool) -> None:
    """Step the first task's adapter alone, once all have momentum."""
    torch.manual_seed(0)
    method = Surgery(TaskArithmetic()(pool64()), rank=2)
    schedule = Schedule(2, batch_size=4, update="task", zero_fill=zero_fill)
    module = Adaptation(method, Alignment(), _ADAM, schedule, None, experts(pool64()))
    run_steps(
        module, _Same(), 2, trainer=_QUIET
    )  # two: the first leaves `down` where it is, for `up` is zero
    optimizer = module.trainer.optimizers[0]
    before = [p.detach().clone() for p in method.adapters[1].parameters()]
    module.loop.prepare(optimizer)
    representation = method.encode(images64()["signs"])
    target = module.loop.teacher.encode(images64()["signs"], "signs")
    Alignment()(method, method.correct(representation, "signs"), "signs", target).backward()
    optimizer.step()
    moved = [not torch.equal(a, b) for a, b in zip(before, method.adapters[1].parameters(), strict=True)]
    assert all(moved) if zero_fill else not any(moved)


@pytest.mark.parametrize("objective", [Entropy(), Alignment()])
def test_fifty_steps_reduce_the_loss(objective: Any) -> None:
    torch.manual_seed(0)
    method = (AdaMerging if isinstance(objective, Entropy) else Surgery)(TaskArithmetic()(pool64()))
    module = Adaptation(method, objective, _ADAM, Schedule(50, batch_size=4), None, experts(pool64()))
    run_steps(module, _Same(), 1, trainer=_QUIET)
    first = module.record["loss"]
    run_steps(module, _Same(), 50, trainer=_QUIET)
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


def test_concrete_learns_one_logit_per_merged_parameter() -> None:
    pool = make_vit_pool()
    numel = sum(value.numel() for value in pool.base.values())
    assert Concrete(pool).trainable_count() == numel
    assert Concrete(pool, train_coefficients=True).trainable_count() == numel + 3 * len(pool.keys)
