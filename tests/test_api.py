"""The Python API that others build on (names importable from `adamerge`)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints.formats import MODEL, save_head_pickle, save_task_vectors_pickle, tiny_clip, vision_state
from omegaconf import OmegaConf

import adamerge
from adamerge.checkpoints import open_clip_to_hf
from adamerge.errors import ConfigError, PoolError
from adamerge.rules.doge import Doge
from adamerge.rules.linear import TaskArithmetic
from adamerge.rules.lines import Lines
from adamerge.rules.post import followed
from adamerge.rules.svc import Svc
from adamerge.rules.ties import Ties
from adamerge.settings import instantiate
from adamerge.settings.groups import choices
from adamerge.settings.inherited import inherited
from adamerge.settings.sections import RuleSection
from adamerge.statistics.collected import statistics_in_memory

TASKS = ("Cars", "DTD")


@pytest.fixture
def experts() -> dict[str, dict[str, torch.Tensor]]:
    return {"Cars": vision_state(1), "DTD": vision_state(2)}


@pytest.fixture
def heads() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return {task: 10 * torch.randn(4, 8) for task in TASKS}


def test_from_state_dicts_to_an_adapted_model(experts: Any, heads: Any) -> None:
    pool = adamerge.open_pool(vision_state(), experts, heads, backbone=MODEL)
    method = adamerge.methods.AdaMerging(pool, granularity="layer", start=0.3, clamp=True)
    images = {task: torch.randn(4, 3, 8, 8) for task in TASKS}
    adam = partial(torch.optim.Adam, lr=1e-2)
    adamerge.fit(method, [images] * 3, optimizer=adam, schedule={"steps": 3, "batch_size": 4})
    coefficients = method.coefficients()
    assert set(coefficients) == set(TASKS)
    assert set(coefficients["Cars"]) == set(vision_state())
    assert any(value != pytest.approx(0.3) for value in coefficients["Cars"].values())
    merged = method.merged_state_dict()
    clip = tiny_clip()
    clip.load_state_dict(merged, strict=False)
    with torch.no_grad():
        expected = torch.nn.functional.normalize(clip.encode_image(images["DTD"]), dim=-1) @ heads["DTD"].t()
        torch.testing.assert_close(method.logits(images["DTD"], "DTD"), expected, rtol=1e-4, atol=1e-4)


def test_the_order_of_the_tasks_is_the_experts_whatever_the_heads_order(experts: Any, heads: Any) -> None:
    turned = dict(reversed(heads.items()))  # as a file may give them; trained parts are kept by place
    pool = adamerge.open_pool(vision_state(), experts, turned, backbone=MODEL)
    assert pool.tasks == pool.names == TASKS


def test_files_of_different_families_make_one_pool(tmp_path: Path, experts: Any, heads: Any) -> None:
    save_task_vectors_pickle(tmp_path / "base.pt", vision_state(), vision="VisualTransformer")
    torch.save(open_clip_to_hf(experts["Cars"]), tmp_path / "cars.bin")
    save_head_pickle(tmp_path / "head_Cars.pt", heads["Cars"])
    mixed = adamerge.open_pool(
        tmp_path / "base.pt",
        {"Cars": tmp_path / "cars.bin", "DTD": experts["DTD"]},
        {"Cars": tmp_path / "head_Cars.pt", "DTD": heads["DTD"]},
        backbone=MODEL,
    )
    plain = adamerge.open_pool(vision_state(), experts, heads, backbone=MODEL)
    for key, stack in plain.vectors.items():
        torch.testing.assert_close(mixed.vectors[key], stack)
    assert torch.equal(mixed.heads["Cars"].weight, heads["Cars"])


def test_hugging_face_experts_leave_the_projection_alone(experts: Any, heads: Any) -> None:
    without = {
        task: {k: v for k, v in open_clip_to_hf(state).items() if k != "visual_projection.weight"}
        for task, state in experts.items()
    }
    pool = adamerge.open_pool(vision_state(), without, heads, backbone=MODEL)
    assert "visual.proj" not in pool.keys
    assert torch.equal(pool.static()["visual.proj"], vision_state()["visual.proj"])
    rows = len(adamerge.methods.AdaMerging(pool, layout="hf").merging.layers)
    assert rows == len(vision_state()) - 1 + 4 * 2  # two blocks, four more rows each


def test_a_base_without_projection_says_what_to_give(experts: Any, heads: Any) -> None:
    base = {k: v for k, v in vision_state().items() if k != "visual.proj"}
    with pytest.raises(PoolError, match="no projection(.|\n)*CLIPVisionModelWithProjection"):
        adamerge.open_pool(base, experts, heads, backbone=MODEL)


def test_rows_follow_the_module_whatever_the_file_s_order(tmp_path: Path, experts: Any, heads: Any) -> None:
    shuffled = dict(sorted(vision_state().items(), reverse=True))
    pool = adamerge.open_pool(shuffled, experts, heads, backbone=MODEL)
    assert list(pool.keys) == list(pool.encoder.state_dict())


def test_merge_is_the_rule(experts: Any, heads: Any) -> None:
    pool = adamerge.open_pool(vision_state(), experts, heads, backbone=MODEL)
    merged = adamerge.merge(pool, rule="task_arithmetic", scale=0.5)
    for key, value in merged.items():
        expected = vision_state()[key] + 0.5 * sum(e[key] - vision_state()[key] for e in experts.values())
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(PoolError, match="No merging rule 'tyes'; did you mean 'ties'"):
        adamerge.merge(pool, rule="tyes")
    with pytest.raises(
        ConfigError, match=r"rule\.scal: TaskArithmetic has no such option; did you mean 'scale'"
    ):
        adamerge.merge(pool, rule="task_arithmetic", scal=0.5)


@pytest.mark.parametrize("name", choices("rule"))
def test_every_rule_merges_by_its_yamls_name_with_its_yamls_values(
    experts: Any, heads: Any, name: Any
) -> None:
    """As `merge rule=<name>` does, where neither the suite nor the checkpoints say otherwise."""
    pool = adamerge.open_pool(vision_state(), experts, heads, backbone=MODEL)
    section: Any = OmegaConf.to_container(OmegaConf.create(inherited(choices("rule")[name])), resolve=True)
    node = RuleSection.component_in(section)
    rule = TaskArithmetic(0.3) if node is None else instantiate(node)
    seen = {task: torch.randn(4, 3, 8, 8) for task in pool.names} if rule.needs == "images" else None
    ruled = rule(pool, statistics=None if seen is None else statistics_in_memory(pool, seen))
    tasks = pool.names if ruled.by_task else (None,)
    for task in tasks:
        merged = adamerge.merge(pool, rule=name, task=task, images=seen)
        assert all(torch.equal(merged[key], value) for key, value in ruled.static(task).items())
    if ruled.by_task:
        with pytest.raises(PoolError, match="one encoder per task"):
            adamerge.merge(pool, rule=name)


def test_a_post_rule_and_the_origin_by_the_yaml_s_names(experts: Any, heads: Any) -> None:
    pool = adamerge.open_pool(vision_state(), experts, heads, backbone=MODEL)
    cases: Any = (
        ({"post": "lines"}, followed(Ties(), [Lines(0.5)]), "base"),
        ({"post": Lines(0.1)}, followed(Ties(), [Lines(0.1)]), "base"),
        ({"post": ["lines", Svc()]}, followed(Ties(), [Lines(0.5), Svc()]), "base"),
        ({"post": ["svc", "lines"]}, followed(Ties(), [Svc(), Lines(0.5)]), "base"),
        ({"origin": "average"}, Ties(), "average"),
    )
    for options, rule, origin in cases:
        expected = rule(pool, origin=origin).static()
        merged = adamerge.merge(pool, rule="ties", **options)
        assert all(torch.equal(merged[key], value) for key, value in expected.items())
    with pytest.raises(PoolError, match="No post-rule 'line'; did you mean 'lines'"):
        adamerge.merge(pool, rule="ties", post="line")
    with pytest.raises(PoolError, match="learns from unlabeled images of every task, which were not given"):
        adamerge.merge(pool, rule="regmean")
    with pytest.raises(PoolError, match="images of every expert's task; DTD has none"):
        adamerge.merge(pool, rule="regmean", images={"Cars": torch.randn(2, 3, 8, 8)})


def test_a_yaml_s_values_hold_in_python_and_options_go_before_them(experts: Any, heads: Any) -> None:
    pool = adamerge.open_pool(vision_state(), experts, heads, backbone=MODEL)
    for options, rule in (
        ({"rule": "ties"}, Ties(0.2, 0.3, "sum")),
        ({"rule": "ties", "top_k": 0.5, "aggregate": "mean"}, Ties(0.5, 0.3, "mean")),
        ({"rule": "doge_ta", "steps": 2}, Doge("ta", steps=2)),
        ({"rule": "doge_am", "steps": 2}, Doge("am", steps=2)),
        ({"rule": Ties(0.7)}, Ties(0.7)),
    ):
        expected = rule(pool).static()
        merged = adamerge.merge(pool, **options)
        assert all(torch.equal(merged[key], value) for key, value in expected.items())


def test_bfloat16_task_vectors_halve_the_memory(experts: Any, heads: Any) -> None:
    full = adamerge.open_pool(vision_state(), experts, heads, backbone=MODEL)
    half = adamerge.open_pool(vision_state(), experts, heads, backbone=MODEL, dtype=torch.bfloat16)
    sizes = [sum(v.numel() * v.element_size() for v in p.vectors.values()) for p in (full, half)]
    assert sizes[0] == 2 * sizes[1]
    images = torch.randn(2, 3, 8, 8)
    ours, theirs = (adamerge.methods.AdaMerging(p).logits(images, "Cars") for p in (full, half))
    torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.1)
    assert ours.dtype == theirs.dtype == torch.float32


def test_everything_that_does_not_fit_is_in_one_error(experts: Any, heads: Any) -> None:
    experts["Cars"]["visual.conv1.weight"] = torch.zeros(16, 3, 2, 2)
    del experts["DTD"]["visual.ln_post.bias"]
    with pytest.raises(PoolError) as error:
        adamerge.open_pool(vision_state(), experts, heads, backbone=MODEL)
    for part in ("Cars", "(16, 3, 2, 2)", "expected (16, 3, 4, 4)", "DTD", "visual.ln_post.bias"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e, h: h.pop("DTD"), "DTD: no head"),
        (lambda e, h: h.update(DTD=torch.zeros(4, 7)), r"DTD: the head is \(4, 7\), expected \(classes, 8\)"),
        (lambda e, h: e.update(Cars=vision_state(), DTD=vision_state()), "no task vectors"),
    ],
)
def test_heads_and_experts_that_make_no_pool(experts: Any, heads: Any, change: Any, message: str) -> None:
    change(experts, heads)
    with pytest.raises(PoolError, match=message):
        adamerge.open_pool(vision_state(), experts, heads, backbone=MODEL)


def test_the_backbone_is_guessed_from_the_shapes(experts: Any, heads: Any) -> None:
    pool = adamerge.open_pool(vision_state(), experts, heads)
    assert {k: v.shape for k, v in pool.encoder.state_dict().items()} == {
        k: v.shape for k, v in vision_state().items()
    }


def test_uint8_pixels_are_normalised_like_clip_does(experts: Any, heads: Any) -> None:
    from adamerge.models.pictures import PictureRules

    normalise = PictureRules.of(8).normalise

    pool = adamerge.open_pool(vision_state(), experts, heads, backbone=MODEL)
    method = adamerge.methods.Static(pool)
    pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    torch.testing.assert_close(method.features(pixels), method.features(normalise(pixels)))
    assert normalise(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8))[0, 0, 0, 0] == pytest.approx(
        (1 - 0.48145466) / 0.26862954
    )
