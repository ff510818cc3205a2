"""What every method must do; a new YAML is tested from its first day."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from composing import settings
from conftest import TASKS, TINY_VIT, make_vit_pool

from adamerge.checkpoints import save_tensors
from adamerge.checkpoints.heads import tensors_of_heads
from adamerge.errors import PoolError
from adamerge.merging import Pool
from adamerge.methods import Method, experts
from adamerge.methods.full_finetuning import FullFinetuning
from adamerge.methods.static import Static
from adamerge.models.backbone import Backbone
from adamerge.models.blocks import recompute_blocks
from adamerge.models.finished import open_finished, save_finished
from adamerge.rules.linear import TaskArithmetic
from adamerge.settings import instantiate
from adamerge.settings.components import described, find_target
from adamerge.settings.groups import method_names
from adamerge.statistics.collected import statistics_in_memory
from adamerge.training import Adaptation, Schedule, fit, run_steps

METHODS = method_names()
STEPS = 4
SHORT = (
    "suite.steps=4",
    "suite.tuned.concrete_layerwise.meta_steps=2",
    "++suite.tuned.supermerge_hierarchical.group_steps=2",
    "backbone.model.vision_cfg.image_size=4",
)


def config(name: str, words: tuple[str, ...] = ()) -> Any:
    found = settings("train", f"method={name}", *SHORT, *words)
    training = found.method.training or {}
    if "inner_lr" in training:
        # A step of 1 can put whole rows behind the clamp, where nothing moves.
        method = found.method.model_copy(update={"training": {**training, "inner_lr": 0.1}})
        return found.model_copy(update={"method": method})
    return found


def build(cfg: Any, pool: Pool) -> Method:
    named = cfg.rule.component
    rule = TaskArithmetic() if named is None else instantiate(named)
    seen = Rounds(pool.tasks, 8, labels=False)[0]
    ruled = rule(pool, statistics=None if rule.needs == "nothing" else statistics_in_memory(pool, seen))
    torch.manual_seed(0)
    return instantiate(cfg.method.model, ruled).eval()


class Rounds(torch.utils.data.Dataset):
    """Images of step i, a pure function of i, or always the same; with labels where the objective asks for them."""

    def __init__(self, tasks: tuple[str, ...], per_task: int, labels: bool, fixed: bool = False) -> None:
        self.tasks, self.per_task, self.labels, self.fixed = tasks, per_task, labels, fixed

    def __getitem__(self, step: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(0 if self.fixed else step)
        images = {task: 3 * torch.randn(self.per_task, 3, 4, 4, generator=generator) for task in self.tasks}
        if not self.labels:
            return images
        return {task: {"images": x, "target": (torch.arange(len(x)) % 3,)} for task, x in images.items()}


class StopAt(pl.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        if pl_module.step == self.step:
            raise ConnectionAbortedError("killed")


def adapted(
    name: str,
    tasks: tuple[str, ...] = TASKS,
    folder: Path | None = None,
    stop: int | None = None,
    recompute: bool = False,
    words: tuple[str, ...] = (),
) -> Method:
    """The method after a few steps; with `folder` it can be stopped, and goes on from there."""
    cfg = config(name, words)
    pool = make_vit_pool(tasks=tasks)
    if recompute:
        recompute_blocks(pool.encoder)
    method = build(cfg, pool)
    if cfg.method.schedule is not None:
        options = cfg.method.schedule.model_dump()
        schedule = Schedule(**{**options, "steps": STEPS, "batch_size": 8})  # type: ignore[dict-item]
        objective = instantiate(cfg.method.objective)
        training = cfg.method.training
        loop = partial(instantiate, training) if training else None
        teacher = experts(make_vit_pool(tasks=tasks), method.block_means)
        optimizer = instantiate(cfg.method.optimizer) if cfg.method.optimizer else None
        labeled = Rounds(tasks, 8, True)[0] if cfg.method.labels else None
        module = Adaptation(method, objective, optimizer, schedule, None, teacher, labeled=labeled, loop=loop)
        trainer = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}
        rounds = Rounds(
            tasks, schedule.images_per_task, objective.target == "labels", schedule.feed == "fixed"
        )
        callbacks: list[pl.Callback] = [] if stop is None else [StopAt(stop)]
        run_steps(
            module, rounds, STEPS, folder=folder, trainer=trainer, callbacks=callbacks, checkpoint_every=1
        )
    return method.eval()


@pytest.mark.parametrize("name", METHODS)
def test_it_trains_its_own_parts_and_nothing_else(name: Any) -> None:
    cfg = config(name)
    untouched = build(cfg, make_vit_pool()).pool
    start = {k: v.clone() for k, v in build(cfg, make_vit_pool()).state_dict().items()}
    method = adapted(name)
    groups = [lambda pool: pool.base, lambda pool: pool.vectors, lambda pool: tensors_of_heads(pool.heads)]
    for group in groups:
        before, after = group(untouched), group(method.pool)
        assert all(torch.equal(before[key], after[key]) for key in before)
    moved = {key for key, value in method.state_dict().items() if not torch.equal(value, start[key])}
    trained = {key for key, value in method.named_parameters() if value.requires_grad}
    counters = {key for key, _ in method.named_buffers()}
    assert trained <= moved <= trained | counters
    assert bool(moved) == (cfg.method.schedule is not None)


@pytest.mark.parametrize("name", METHODS)
def test_it_is_deterministic_and_its_parts_restore_it(name: Any) -> None:
    first, second = adapted(name), adapted(name)
    fresh = build(config(name), make_vit_pool())
    fresh.load_state_dict(first.state_dict())
    images = torch.randn(3, 3, 4, 4)
    for task in TASKS:
        with torch.no_grad():
            expected = first.logits(images, task)
            assert torch.equal(expected, second.logits(images, task))
            assert torch.equal(expected, fresh.logits(images, task))


@pytest.mark.parametrize("name", METHODS)
def test_a_finished_model_needs_no_experts(name: Any, tmp_path: Path) -> None:
    """What is kept of it, written and read again, gives the same logits to the bit."""
    method = adapted(name)
    pool = method.kept()
    assert pool is not None, f"{name} does not say what predicting needs of its pool"
    if method.one_encoder:
        save_tensors(tmp_path / "merged.safetensors", method.merged_state_dict())
    save_finished(tmp_path, pool)
    state = {key: value.clone() for key, value in method.state_dict().items()}
    target, options = described(config(name).method.model)
    again = target.restore(open_finished(tmp_path, Backbone.of(TINY_VIT)), state, **options).eval()
    images = torch.randn(5, 3, 4, 4)
    for task in TASKS:
        with torch.no_grad():
            with method.merged_once(task), again.merged_once(task):
                assert torch.equal(method.logits(images, task), again.logits(images, task))
            assert torch.equal(method.logits(images, task), again.logits(images, task))
    if method.one_encoder:
        assert not again.pool.vectors
        whole = again.merged_state_dict()
        assert all(torch.equal(value, whole[key]) for key, value in method.merged_state_dict().items())


def test_a_method_with_a_pass_of_its_own_does_not_lose_it_unseen() -> None:
    class Doubled(Static):
        def correct(self, encoded: Any, task: Any) -> Any:
            return (2 * encoded[-1] + 1,)

    class Shifted(FullFinetuning):
        def classify(self, features: Any, task: Any) -> Any:
            return super().classify(features, task) + 1

    assert Shifted(make_vit_pool()).kept() is None
    assert Doubled(make_vit_pool()).kept() is None
    assert FullFinetuning(make_vit_pool()).kept() is not None


TRAINED = [name for name in METHODS if config(name).method.schedule is not None]


@pytest.mark.parametrize("stop", [2, 3])
@pytest.mark.parametrize("name", TRAINED)
def test_it_resumes_bit_by_bit(name: Any, stop: int, tmp_path: Path) -> None:
    whole = adapted(name, folder=tmp_path / "whole")
    with pytest.raises(ConnectionAbortedError):
        adapted(name, folder=tmp_path / "cut", stop=stop)
    torch.manual_seed(99)  # a new process has another generator
    resumed = adapted(name, folder=tmp_path / "cut")
    assert whole.state_dict().keys() == resumed.state_dict().keys()
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


@pytest.mark.parametrize("name", TRAINED)
def test_fit_trains_it_by_its_own_loop(name: Any) -> None:
    """From Python, with nothing said of the loop but its options, the result is that of the YAML to the bit."""
    cfg = config(name)
    method = build(cfg, make_vit_pool())
    objective = instantiate(cfg.method.objective)
    training = dict(cfg.method.training or {})
    assert find_target(training.pop("_target_", None) or path_of(method.loop)) is method.loop
    # A method's own objective is its paper's; a guided preset is the same method by another.
    own = type(method.objective) is type(objective) and vars(method.objective) == vars(objective)
    assert own or "guided" in name or type(method.objective) is type(objective)
    schedule = {**cfg.method.schedule.model_dump(), "steps": STEPS, "batch_size": 8}
    rounds = Rounds(
        TASKS, Schedule(**schedule).images_per_task, objective.target == "labels", schedule["feed"] == "fixed"
    )
    fit(
        method,
        [rounds[step] for step in range(STEPS)],
        optimizer=instantiate(cfg.method.optimizer) if cfg.method.optimizer else None,
        schedule=schedule,
        objective=None if own else objective,
        teacher=make_vit_pool(),
        labeled=Rounds(TASKS, 8, True)[0],
        loop=partial(method.loop, **training) if training else None,
        trainer={"accelerator": "cpu"},
    )
    for key, value in adapted(name).state_dict().items():
        assert torch.equal(value, method.state_dict()[key]), key


def path_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


@pytest.mark.parametrize("name", TRAINED)
def test_activation_checkpointing_changes_nothing(name: Any) -> None:
    kept, recomputed = adapted(name).state_dict(), adapted(name, recompute=True).state_dict()
    for key, value in kept.items():
        torch.testing.assert_close(value, recomputed[key])


@pytest.mark.parametrize("name", METHODS)
def test_it_works_with_one_task(name: Any) -> None:
    if config(name).rule.component and instantiate(config(name).rule.component).origin == "average":
        # About itself one expert leaves nothing.
        with pytest.raises(PoolError, match="more experts"):
            adapted(name, TASKS[:1])
        return
    method = adapted(name, TASKS[:1])
    assert method.logits(torch.randn(2, 3, 4, 4), TASKS[0]).shape == (2, 4)


@pytest.mark.parametrize("name", METHODS)
def test_it_describes_itself(name: Any) -> None:
    cfg = config(name).method
    assert cfg.name == name
    assert cfg.summary
    assert cfg.needs
    assert cfg.paper or cfg.schedule is None


@pytest.mark.parametrize("name", METHODS)
def test_a_round_and_single_calls_give_the_same_features(name: Any) -> None:
    method = build(config(name), make_vit_pool())
    images = torch.randn(3, 3, 4, 4)
    task = TASKS[1]
    with torch.no_grad(), method.merged_once(task if method.by_task else None):
        inside = method.logits(images, task)
    torch.testing.assert_close(method.logits(images, task).detach(), inside)


def test_rounds_do_not_nest() -> None:
    method = build(config("adamerging_layerwise"), make_vit_pool())
    with method.merged_once(), pytest.raises(RuntimeError, match="do not nest"), method.merged_once():
        pass


def test_start_may_come_from_the_rule() -> None:
    cfg = config("adamerging_layerwise", ("method.model.start=null", "rule=weight_average"))
    method = build(cfg, make_vit_pool())
    torch.testing.assert_close(method.merging.values, torch.full_like(method.merging.values, 1 / 3))


def test_adamerging_refuses_a_rule_that_keeps_an_encoder_per_task() -> None:
    cfg = config("adamerging_layerwise", ("rule=individual",))
    with pytest.raises(PoolError, match="one encoder per task"):
        build(cfg, make_vit_pool())
