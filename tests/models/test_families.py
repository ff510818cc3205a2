"""Every published family of checkpoints, as a small replica in its own folders, opens to the same pool."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints.formats import save_head_pickle, save_task_vectors_pickle
from composing import settings
from safetensors.torch import save_file
from torch import Tensor

from adamerge.checkpoints import open_clip_to_hf
from adamerge.checkpoints.addresses import locate
from adamerge.errors import CheckpointError
from adamerge.merging import Pool
from adamerge.models.clip import build_clip
from adamerge.models.pretrained import build_heads, pretrained_state
from adamerge.runs.suite_pool import pool_with_heads
from adamerge.runs.weights import checkpoint_paths, fingerprints

MODEL = {
    "embed_dim": 8,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 8, "layers": 2, "width": 16, "head_width": 8, "patch_size": 4},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
}
PROMPTS = {"stanford_cars": [["a car"], ["a van"]], "dtd": [["dots"], ["a grid"], ["lace"]]}
TASKS = tuple(PROMPTS)
NAMES = {"stanford_cars": "Cars", "dtd": "DTD"}
FAMILIES = ("task_vectors", "tall_masks", "fusion_bench", "tinting", "folder")


def clip(seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    state = build_clip(MODEL).state_dict()
    return {
        key: value + 0.1 * torch.randn_like(value) if value.ndim else value for key, value in state.items()
    }


BASE = clip(0)
EXPERTS = {
    task: {k: v for k, v in clip(seed).items() if k.startswith("visual.")}
    for seed, task in enumerate(TASKS, 1)
}
HEADS = build_heads(BASE, MODEL, PROMPTS)


def visual(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key.startswith("visual.")}


def config(family: str, *words: str) -> Any:
    tasks = f"suite.tasks=[{','.join(TASKS)}]"
    found = settings("train", "suite=eight", f"checkpoints={family}", "backbone=vit_b_32", tasks, *words)
    return found.model_copy(update={"backbone": found.backbone.model_copy(update={"model": MODEL})})


def hub(cache: Path, repo: str, files: dict[str, Any]) -> None:
    """What a download leaves in the hub's cache."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    for name, write in files.items():
        path = folder / "snapshots" / "0123abc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123abc")


def pickled(state: dict[str, Tensor], vision: str, form: str = "zip") -> Any:
    return lambda path: save_task_vectors_pickle(path, visual(state), vision=vision, form=form)


def hf_clip(path: Path) -> None:
    """A whole CLIPModel with Hugging Face's names."""
    text = {
        "token_embedding.weight": "embeddings.token_embedding.weight",
        "positional_embedding": "embeddings.position_embedding.weight",
        "ln_final.weight": "final_layer_norm.weight",
        "ln_final.bias": "final_layer_norm.bias",
    }
    state = open_clip_to_hf(visual(BASE))
    state |= {f"text_model.{theirs}": BASE[ours] for ours, theirs in text.items()}
    blocks = {f"visual.{k}": v for k, v in BASE.items() if k.startswith("transformer.")}
    renamed = open_clip_to_hf(blocks)
    state |= {key.replace("vision_model.", "text_model."): value for key, value in renamed.items()}
    state["text_projection.weight"] = BASE["text_projection"].t()
    state["logit_scale"] = BASE["logit_scale"]
    save_file({k: v.contiguous() for k, v in state.items()}, path)


def hf_vision(task: str, version: int) -> dict[str, Tensor]:
    """A CLIPVisionModel: without the projection, from transformers 5 on without the prefix."""
    state = open_clip_to_hf(EXPERTS[task])
    del state["visual_projection.weight"]
    prefix = "vision_model." if version == 5 else ""
    return {key.removeprefix(prefix): value.contiguous() for key, value in state.items()}


def sharded(task: str) -> dict[str, Any]:
    state = hf_vision(task, 4)
    half = dict(enumerate([sorted(state)[::2], sorted(state)[1::2]], 1))
    index = {
        "weight_map": {key: f"model-0000{i}-of-00002.safetensors" for i, keys in half.items() for key in keys}
    }
    files: dict[str, Any] = {"model.safetensors.index.json": lambda path: path.write_text(json.dumps(index))}
    for i, keys in half.items():
        files[f"model-0000{i}-of-00002.safetensors"] = lambda path, keys=keys: save_file(
            {key: state[key] for key in keys}, path
        )
    return files


def replica(family: str, folder: Path) -> Any:
    """The family's files and the config that finds them."""
    cache = folder / "hub"
    whole = {"open_clip_model.safetensors": lambda path: save_file(BASE, path)}
    text = f"checkpoints.text={folder / 'text.safetensors'}"
    save_file(BASE, folder / "text.safetensors")
    if family == "task_vectors":
        root = folder / "ViT-B-32"
        for name in NAMES.values():
            (root / name).mkdir(parents=True)
        pickled(BASE, "VisualTransformer")(root / "zeroshot.pt")
        pickled(EXPERTS["stanford_cars"], "VisualTransformer", "plain")(root / "Cars/finetuned.pt")
        pickled(EXPERTS["dtd"], "VisualTransformer", "legacy")(root / "DTD/finetuned.pt")
        for task, name in NAMES.items():
            save_head_pickle(root / f"head_{name}.pt", HEADS[task])
        heads = "checkpoints.heads='${checkpoints.root}/ViT-B-32/head_{task}.pt'"
        return config(family, f"checkpoints.root={folder}", heads, text)
    if family == "tall_masks":
        files = {"ViT-B-32/MNISTVal/nonlinear_zeroshot.pt": partial(torch.save, visual(BASE))}
        for task, name in NAMES.items():
            state = {f"model.{key}": value for key, value in EXPERTS[task].items()}
            files[f"ViT-B-32/{name}Val/nonlinear_finetuned.pt"] = partial(torch.save, state)
        hub(cache, "nik-dim/tall_masks", files)
        return config(family, text)
    if family == "fusion_bench":
        hub(cache, "openai/clip-vit-base-patch32", {"model.safetensors": hf_clip})
        five = {"model.safetensors": lambda path: save_file(hf_vision("stanford_cars", 5), path)}
        hub(cache, "tanganke/clip-vit-base-patch32_stanford-cars", five)
        hub(cache, "tanganke/clip-vit-base-patch32_dtd", sharded("dtd"))
        return config(family)
    if family == "tinting":
        files = {"ViT-B-32/zeroshot.pt": pickled(BASE, "VisionTransformer")}
        for task, name in NAMES.items():
            files[f"ViT-B-32/{name}/finetuned.pt"] = pickled(EXPERTS[task], "VisionTransformer")
        hub(cache, "kasurashan/checkpoints_tint", files)
        return config(family, text)
    (folder / "base").mkdir()
    whole["open_clip_model.safetensors"](folder / "base" / "open_clip_model.safetensors")
    save_file(EXPERTS["stanford_cars"], folder / "Cars.safetensors")
    (folder / "dtd").mkdir()
    save_file(hf_vision("dtd", 5), folder / "dtd" / "model.safetensors")
    return config(family, f"checkpoints.root={folder}", "+checkpoints.names.stanford_cars=Cars")


def opened(cfg: Any) -> Pool:
    paths = checkpoint_paths(cfg)
    heads: Any = {task: paths.get(f"heads/{task}") for task in TASKS}
    if cfg.checkpoints.heads is None:
        heads = build_heads(pretrained_state(paths.get("text", paths["base"]), MODEL), MODEL, PROMPTS)
    assert set(fingerprints(paths)) == set(paths)
    return pool_with_heads(cfg, paths, heads)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_replica_of_the_family_gives_the_same_pool(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    pool = opened(replica(family, tmp_path))
    assert pool.tasks == TASKS
    for key, value in visual(BASE).items():
        torch.testing.assert_close(pool.base[key], value, rtol=0, atol=1e-5)
        for k, task in enumerate(TASKS):
            expert = EXPERTS[task][key] - value
            if key == "visual.proj" and (family == "fusion_bench" or (family, task) == ("folder", "dtd")):
                expert = torch.zeros_like(value)  # Hugging Face's experts leave the projection to the base
            if key in pool.vectors:
                torch.testing.assert_close(pool.vectors[key][k].view_as(value), expert, rtol=0, atol=1e-5)
            else:
                assert not expert.any()
    for task in TASKS:
        torch.testing.assert_close(pool.heads[task].weight, HEADS[task], rtol=0, atol=1e-4)


def test_every_missing_file_of_a_family_is_named_once_with_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as error:
        checkpoint_paths(config("task_vectors", f"checkpoints.root={tmp_path}", "checkpoints.text=null"))
    text = str(error.value)
    assert "3 of 3 weight files are missing" in text
    assert f"{tmp_path}/ViT-B-32/Cars/finetuned.pt" in text
    assert "mlfoundations/task_vectors" in text


def test_nothing_is_fetched_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    def fetched(*_: Any, **options: Any) -> Any:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("huggingface_hub.list_repo_files", fetched)
    with pytest.raises(CheckpointError, match=r"3 of 3 weight files(.|\n)*stanford-cars(.|\n)*download=true"):
        checkpoint_paths(config("fusion_bench"))


def test_a_network_that_does_not_answer_is_an_error_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> Any:
        raise OSError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.list_repo_files", unreachable)
    with pytest.raises(CheckpointError, match=r"could not be fetched: Name or service(.|\n)*HF_HOME"):
        locate("hf-hub:someone/nothing-that-is-cached", download=True)


@pytest.mark.parametrize("place", ["hf-hub:", "hf-hub:name", "hf-hub:@main/x"])
def test_a_malformed_place_is_named(place: str) -> None:
    with pytest.raises(CheckpointError, match="expected hf-hub:<owner>/<name>"):
        locate(place)


def test_an_extension_may_be_left_out_unless_it_is_ambiguous(tmp_path: Path) -> None:
    (tmp_path / "cars.pt").touch()
    assert locate(str(tmp_path / "cars")) == str(tmp_path / "cars.pt")
    assert locate(f"local-dir:{tmp_path}") == str(tmp_path)
    (tmp_path / "cars.bin").touch()
    with pytest.raises(CheckpointError, match=r"cars\.pt, cars\.bin"):
        locate(str(tmp_path / "cars"))


def test_random_weights_are_the_same_every_time() -> None:
    cfg = config("random")
    first, second = opened(cfg), opened(cfg)
    assert all(torch.equal(first.vectors[key], second.vectors[key]) for key in first.vectors)
    assert all(torch.equal(first.base[key], second.base[key]) for key in first.base)
