"""A merge from file to file, tensor by tensor, is the merge in memory to the bit, for every rule that ships."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints.formats import MODEL, vision_state
from safetensors.torch import load_file, save_file

import adamerge
from adamerge.checkpoints import open_clip_to_hf, save_tensors
from adamerge.errors import CheckpointError, PoolError
from adamerge.merging.quantised import INT3, INT8
from adamerge.merging.task_vectors import InMemory, Origin
from adamerge.models.slices import Slices, open_vectors
from adamerge.rules.post import followed
from adamerge.rules.rule import Rule
from adamerge.rules.ties import Ties
from adamerge.runs.merging import post_named, rule_named, write_merged
from adamerge.settings.groups import choices

TASKS = ("Cars", "DTD", "SVHN")
HEADS = {task: torch.ones(4, 8) for task in TASKS}
STATIC = {name: rule_named(name) for name in choices("rule")}
RULES = [name for name, rule in STATIC.items() if rule.gives != "experts" and rule.needs == "nothing"]
POSTS = [name for name in choices("post") if post_named(name).needs == "nothing"]
ABOUT: tuple[Origin, ...] = ("base", "average")


def states() -> dict[str, dict[str, torch.Tensor]]:
    """Experts near the base; one of them has left a tensor as it was, another has no projection."""
    base = vision_state()
    found = {}
    for i, task in enumerate(TASKS):
        torch.manual_seed(10 + i)
        found[task] = {key: value + 0.05 * torch.randn_like(value) for key, value in base.items()}
    found["Cars"]["visual.ln_post.bias"] = base["visual.ln_post.bias"].clone()
    for state in found.values():
        state["visual.ln_pre.bias"] = base["visual.ln_pre.bias"].clone()
    del found["SVHN"]["visual.proj"]
    return found


def files(folder: Path, form: str) -> tuple[Path, dict[str, Path]]:
    """Base and experts in one form: open_clip's names, Hugging Face's, or split into shards."""
    paths = {}
    for name, state in {"base": vision_state(), **states()}.items():
        if form == "hf":
            state = open_clip_to_hf(state)
        elif form == "wrapped":
            state = {f"module.{key}": value for key, value in state.items()}
        state = {key: value.contiguous() for key, value in state.items()}
        if form == "shards":
            paths[name] = folder / name
            paths[name].mkdir()
            where = {key: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, key in enumerate(state)}
            for shard in sorted(set(where.values())):
                save_file({k: v for k, v in state.items() if where[k] == shard}, paths[name] / shard)
            index = {"weight_map": where}
            (paths[name] / "model.safetensors.index.json").write_text(json.dumps(index))
        else:
            paths[name] = folder / f"{name}.safetensors"
            save_file(state, paths[name])
    return paths.pop("base"), paths


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    return files(tmp_path_factory.mktemp("plain"), "open_clip")


def in_memory(
    rule: Rule,
    base: Path,
    experts: dict[str, Path],
    dtype: torch.dtype,
    folder: Path,
    origin: Origin = "base",
) -> bytes:
    """As a run of that precision merges and saves."""
    wide = torch.float32 if rule.ranks else dtype
    pool = adamerge.open_pool(base, experts, HEADS, backbone=MODEL, dtype=wide)
    save_tensors(folder / "whole.safetensors", rule(pool, dtype, origin).static())
    return (folder / "whole.safetensors").read_bytes()


def streamed(
    rule: Rule,
    base: Path,
    experts: dict[str, Path],
    dtype: torch.dtype,
    folder: Path,
    origin: Origin = "base",
) -> bytes:
    vectors = open_vectors(base, experts, MODEL, torch.float32 if rule.ranks else dtype)
    assert isinstance(vectors, Slices)
    write_merged(folder / "streamed.safetensors", rule, vectors, dtype, origin)
    return (folder / "streamed.safetensors").read_bytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", RULES)
def test_every_rule_writes_the_bytes_of_the_merge_in_memory(
    name: Any, dtype: Any, plain: tuple[Path, dict[str, Path]], tmp_path: Path
) -> None:
    rule = rule_named(name)
    found = streamed(rule, *plain, dtype, tmp_path)
    assert found == in_memory(rule, *plain, dtype, tmp_path)
    assert set(load_file(tmp_path / "streamed.safetensors")) == set(vision_state())


@pytest.mark.parametrize("origin", ABOUT)
@pytest.mark.parametrize("name", ["task_arithmetic", "ties", "breadcrumbs", "tsv_m", "interpolation"])
def test_so_does_a_merge_of_task_vectors_in_few_bits(
    name: str, origin: Any, plain: tuple[Path, dict[str, Path]], tmp_path: Path
) -> None:
    rule, dtype = rule_named(name), INT3
    found = streamed(rule, *plain, dtype, tmp_path, origin)
    assert found == in_memory(rule, *plain, dtype, tmp_path, origin)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("posts", [*((name,) for name in POSTS), tuple(POSTS)])
def test_so_does_every_post_rule_alone_and_in_a_chain(
    posts: Any, dtype: Any, plain: tuple[Path, dict[str, Path]], tmp_path: Path
) -> None:
    rule = followed(Ties(), [post_named(name) for name in posts])
    assert streamed(rule, *plain, dtype, tmp_path) == in_memory(rule, *plain, dtype, tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("posts", [(), ("svc",)])
def test_so_do_task_vectors_about_the_average(
    posts: Any, dtype: Any, plain: tuple[Path, dict[str, Path]], tmp_path: Path
) -> None:
    rule = followed(Ties(), [post_named(name) for name in posts])
    found = {o: streamed(rule, *plain, dtype, tmp_path, o) for o in ABOUT}
    assert found["average"] == in_memory(rule, *plain, dtype, tmp_path, "average")
    assert found["average"] != found["base"]


@pytest.mark.parametrize("form", ["hf", "shards", "wrapped"])
def test_whatever_the_tensors_are_called_and_however_they_lie(
    form: str, plain: tuple[Path, dict[str, Path]], tmp_path: Path
) -> None:
    paths = files(tmp_path, form)
    rule = Ties()
    assert streamed(rule, *paths, torch.float32, tmp_path) == in_memory(rule, *plain, torch.float32, tmp_path)


@pytest.mark.parametrize("name", ["emr", "tall", "individual"])
def test_an_encoder_per_task_is_no_single_file(
    name: str, plain: tuple[Path, dict[str, Path]], tmp_path: Path
) -> None:
    vectors = open_vectors(*plain, MODEL)
    with pytest.raises(PoolError, match="one encoder per task"):
        write_merged(tmp_path / "m.safetensors", rule_named(name), vectors)
    assert not (tmp_path / "m.safetensors").exists()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, INT8, INT3])
def test_the_vectors_are_those_of_the_pool(dtype: Any, plain: tuple[Path, dict[str, Path]]) -> None:
    pool = adamerge.open_pool(*plain, HEADS, backbone=MODEL, dtype=dtype)
    slices, whole = open_vectors(*plain, MODEL, dtype), InMemory(pool.names, pool.base, pool.vectors)
    assert (slices.names, slices.keys) == (whole.names, whole.keys)
    assert "visual.ln_pre.bias" not in slices.keys
    assert dict(slices.shapes) == whole.shapes
    for key in slices.keys:
        assert torch.equal(slices.base(key), whole.base(key))
        assert torch.equal(slices.stack(key), whole.stack(key))


def test_what_cannot_be_read_tensor_by_tensor_is_read_whole_and_said(
    plain: tuple[Path, dict[str, Path]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base, experts = plain
    torch.save(load_file(experts["DTD"]), tmp_path / "DTD.pt")
    vectors = open_vectors(base, {**experts, "DTD": tmp_path / "DTD.pt"}, MODEL)
    assert isinstance(vectors, InMemory)
    assert "DTD cannot be read tensor by tensor" in caplog.text
    write_merged(tmp_path / "streamed.safetensors", Ties(), vectors)
    assert (tmp_path / "streamed.safetensors").read_bytes() == in_memory(
        Ties(), *plain, torch.float32, tmp_path
    )


def spoiled(plain: tuple[Path, dict[str, Path]], folder: Path, change: Any) -> dict[str, Path]:
    state = load_file(plain[1]["DTD"])
    change(state)
    save_file(state, folder / "DTD.safetensors")
    return {**plain[1], "DTD": folder / "DTD.safetensors"}


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.update({"visual.conv1.weight": torch.zeros(16, 3, 2, 2)}),
        lambda s: s.pop("visual.ln_post.bias"),
        lambda s: s["visual.proj"].fill_(float("nan")),
        lambda s: s.update({"visual.extra": torch.zeros(3)}),
        lambda s: s.update({"x.lora_A.weight": torch.zeros(3, 3)}),
        lambda s: s.update({"visual.proj": torch.zeros(16, 8, dtype=INT8)}),
    ],
)
def test_an_expert_is_refused_in_the_same_words(
    change: Any, plain: tuple[Path, dict[str, Path]], tmp_path: Path
) -> None:
    experts = spoiled(plain, tmp_path, change)
    with pytest.raises((PoolError, CheckpointError)) as whole:
        adamerge.open_pool(plain[0], experts, HEADS, backbone=MODEL)
    with pytest.raises(type(whole.value)) as sliced:
        open_vectors(plain[0], experts, MODEL)
    assert str(sliced.value) == str(whole.value)


def test_experts_that_are_the_base_and_twins_are_seen(
    plain: tuple[Path, dict[str, Path]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(PoolError, match="no task vectors"):
        open_vectors(plain[0], {"Cars": plain[0]}, MODEL)
    caplog.clear()
    open_vectors(plain[0], {"Cars": plain[1]["Cars"], "DTD": plain[1]["Cars"]}, MODEL)
    assert "DTD equals Cars" in caplog.text


def test_a_flipped_byte_is_seen(plain: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors(path, load_file(plain[1]["Cars"]))
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="sha256"):
        open_vectors(plain[0], {"Cars": path}, MODEL)
