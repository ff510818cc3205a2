"""A LoRA laid onto its base is what PEFT's merge_and_unload gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import adapting
from checkpoints.adapting import (
    ALL,
    MODEL,
    TEXT,
    VISION,
    CLIPModel,
    CLIPVisionModel,
    adapt,
    hugging_face,
    merged_by_peft,
)
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPForImageClassification,
    Dinov2Config,
    Dinov2Model,
    ViTConfig,
    ViTForImageClassification,
)

import adamerge
from adamerge.checkpoints import fingerprint, hf_to_open_clip, open_checkpoint
from adamerge.checkpoints.addresses import locate
from adamerge.checkpoints.lora import Factors
from adamerge.checkpoints.peft_writing import write_adapter
from adamerge.errors import CheckpointError

BASE = dict(hugging_face().state_dict())
HEADS = {"a": torch.randn(3, 8)}


def expert(folder: Path, base: dict[str, Tensor] = BASE) -> dict[str, Tensor]:
    """The expert as a pool has it."""
    return adamerge.open_pool(base, {"a": folder}, HEADS, backbone=MODEL).expert("a")


def check(folder: Path, merged: dict[str, Tensor]) -> None:
    """The expert is the merged model, whichever names the base has."""
    encoder = hf_to_open_clip(BASE)
    merged = {"visual.proj": encoder["visual.proj"], **merged}
    for base in (BASE, encoder):
        found = expert(folder, base)
        assert set(found) == set(merged)
        for key, value in found.items():
            torch.testing.assert_close(value, merged[key], atol=1e-6, rtol=0, msg=key)
    assert any(not torch.equal(found[key], encoder[key]) for key in found)


CONFIGS: dict[str, dict[str, Any]] = {
    "everything": {"target_modules": ALL},
    "q and v": {"target_modules": ["q_proj", "v_proj"], "r": 5, "lora_alpha": 16},
    "rsLoRA": {"target_modules": ALL, "use_rslora": True},
    "patterns": {
        "target_modules": ALL,
        "rank_pattern": {"fc1": 5, r".*layers\.1\.self_attn\.q_proj": 1},
        "alpha_pattern": {"fc2": 7, r"^vision_model\.encoder\.layers\.0\.mlp\.fc1": 11},
    },
    "all biases": {"target_modules": ["q_proj", "fc1"], "bias": "all"},
    "their biases": {"target_modules": ["v_proj", "fc2"], "bias": "lora_only"},
    "an expression": {"target_modules": r".*\.1\..*fc\d"},
    "all linears": {"target_modules": "all-linear"},
    "the input and the output": {
        "target_modules": ["patch_embedding", "position_embedding", "visual_projection"]
    },
    "whole modules": {
        "target_modules": ["q_proj"],
        "modules_to_save": ["post_layernorm", "visual_projection"],
    },
    "whole modules and biases": {
        "target_modules": ["q_proj"],
        "modules_to_save": ["post_layernorm"],
        "bias": "all",
    },
}


@pytest.mark.parametrize("name", CONFIGS)
def test_it_is_what_peft_merges(name: str, tmp_path: Path) -> None:
    adapt(hugging_face(), tmp_path / "a", **CONFIGS[name])
    check(tmp_path / "a", hf_to_open_clip(merged_by_peft(hugging_face(), tmp_path / "a")))


@pytest.mark.parametrize("kind", [CLIPVisionModel, CLIPModel])
def test_whatever_class_it_was_made_on(
    kind: type[nn.Module], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = hugging_face(kind)
    model.load_state_dict({k: v for k, v in BASE.items() if k in model.state_dict()} | {}, strict=False)
    if kind is CLIPVisionModel:  # without the prefix in transformers 5
        model.load_state_dict({k.removeprefix("vision_model."): v for k, v in BASE.items()}, strict=False)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    adapt(model, tmp_path / "a", target_modules=ALL)
    fresh = hugging_face(kind)
    fresh.load_state_dict(before)
    merged = hf_to_open_clip(
        {k: v for k, v in merged_by_peft(fresh, tmp_path / "a").items() if "text" not in k}
    )
    check(tmp_path / "a", merged)
    assert ("12 modules of the text tower" in caplog.text) == (kind is CLIPModel)


@pytest.mark.parametrize("whole", [False, True])
def test_open_clips_fused_attention(whole: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def model() -> nn.Module:
        clip = adapting.open_clip()
        visual: nn.Module = clip.visual  # type: ignore[assignment]
        return clip if whole else visual

    config: dict[str, Any] = {
        "target_modules": ["attn", "c_fc", "c_proj"],
        "bias": "lora_only",
        "rank_pattern": {"0.attn": 3},
    }
    adapt(model(), tmp_path / "a", **config)
    prefix = "" if whole else "visual."
    merged = {prefix + key: value for key, value in merged_by_peft(model(), tmp_path / "a").items()}
    merged = {key: value for key, value in merged.items() if key.startswith("visual.")}
    base = {prefix + k: v for k, v in model().state_dict().items() if (prefix + k).startswith("visual.")}
    found = expert(tmp_path / "a", base)
    for key, value in found.items():
        torch.testing.assert_close(value, merged[key], atol=1e-6, rtol=0, msg=key)
    key = "visual.transformer.resblocks.0.attn.in_proj_weight"
    assert not torch.equal(found[key], base[key])
    assert ("of the text tower" in caplog.text) == whole


# The exact public layout: hoffman-lab/KnOTS-ViT-B-32_lora_R16_<task>, a CLIPVisionModel's, by PEFT 0.9 to 0.11.

KNOTS = {
    "alpha_pattern": {},
    "auto_mapping": {
        "base_model_class": "CLIPVisionModel",
        "parent_library": "transformers.models.clip.modeling_clip",
    },
    "base_model_name_or_path": "openai/clip-vit-base-patch32",
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "layer_replication": None,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_alpha": 16,
    "lora_dropout": 0.1,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "peft_type": "LORA",
    "r": 16,
    "rank_pattern": {},
    "revision": None,
    "target_modules": ["q_proj", "out_proj", "v_proj", "k_proj"],
    "task_type": None,
    "use_dora": False,
    "use_rslora": False,
}
STEM = "base_model.model.vision_model.encoder.layers.{}.self_attn.{}.lora_{}.weight"
Write = Callable[[Path, dict[str, Tensor], dict[str, Any]], Path]


def factors(rank: int = 2, stem: str = STEM) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = {"A": (rank, 16), "B": (16, rank)}
    names = [
        (i, name, side)
        for i in (0, 1)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj")
        for side in "AB"
    ]
    return {stem.format(i, n, side): torch.randn(shapes[side], generator=generator) for i, n, side in names}


def written(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any] | None, name: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config))
    if name.endswith(".bin"):
        torch.save(tensors, folder / name)
    else:
        save_file(tensors, folder / (name or "adapter_model.safetensors"))
    return folder


def by_hand(tensors: dict[str, Tensor], scale: float, stem: str = STEM) -> dict[str, Tensor]:
    """The encoder with s B A in the rows of query, key and value."""
    encoder = hf_to_open_clip(BASE)
    for i in (0, 1):
        deltas = {
            name: scale * tensors[stem.format(i, name, "B")] @ tensors[stem.format(i, name, "A")]
            for name in ("q_proj", "k_proj", "v_proj", "out_proj")
            if stem.format(i, name, "B") in tensors
        }
        zero = torch.zeros(16, 16)
        block = f"visual.transformer.resblocks.{i}.attn"
        rows = [deltas.get(name, zero) for name in ("q_proj", "k_proj", "v_proj")]
        encoder[f"{block}.in_proj_weight"] = encoder[f"{block}.in_proj_weight"] + torch.cat(rows)
        encoder[f"{block}.out_proj.weight"] = encoder[f"{block}.out_proj.weight"] + deltas.get(
            "out_proj", zero
        )
    return encoder


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_model.bin"])
def test_the_public_layout(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tensors = factors(16)
    folder = written(tmp_path / "mnist", tensors, KNOTS, name)
    check(folder, by_hand(tensors, 16 / 16))
    check(folder / name, by_hand(tensors, 1.0))
    assert "was made for openai/clip-vit-base-patch32, but the base" in caplog.text


def test_its_identity_is_that_of_both_files(tmp_path: Path) -> None:
    folder = written(tmp_path / "a", factors(16), KNOTS)
    before = {path: fingerprint(path) for path in (folder, folder / "adapter_model.safetensors")}
    written(folder, factors(16), {**KNOTS, "lora_alpha": 8})
    assert all(fingerprint(path) != identity for path, identity in before.items())
    written(folder, factors(16), KNOTS)
    assert {path: fingerprint(path) for path in before} == before


# Other trainers'.

PLAIN = "visual.transformer.resblocks.{}.attn.{}"
SMALL = {"r": 2, "lora_alpha": 3}


def merged_linear(parts: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = {"lora_A": (2 * parts, 16), "lora_B": (16 * parts, 2)}
    return {PLAIN.format(0, f"in_proj.{k}"): torch.randn(v, generator=generator) for k, v in shapes.items()}


@pytest.mark.parametrize(
    ("enabled", "rows"), [([True, False, True], (0, 2)), ([True, True, False], (0, 1)), (None, (0, 1, 2))]
)
def test_loralibs_merged_linear(enabled: list[bool] | None, rows: tuple[int, ...], tmp_path: Path) -> None:
    tensors = merged_linear(len(rows))
    config = SMALL if enabled is None else {**SMALL, "enable_lora": enabled}
    found = expert(written(tmp_path / "a", tensors, config, "lora.safetensors"))
    key = PLAIN.format(0, "in_proj_weight")
    delta = torch.zeros(48, 16)
    down, up = (tensors[PLAIN.format(0, f"in_proj.lora_{side}")] for side in "AB")
    for group, part in enumerate(rows):
        one = up[16 * group : 16 * (group + 1)] @ down[2 * group : 2 * (group + 1)]
        delta[16 * part : 16 * (part + 1)] = 1.5 * one
    torch.testing.assert_close(found[key], hf_to_open_clip(BASE)[key] + delta, atol=1e-6, rtol=0)


def test_which_parts_of_a_merged_linear_is_not_guessed(tmp_path: Path) -> None:
    folder = written(tmp_path / "a", merged_linear(2), SMALL)
    with pytest.raises(CheckpointError, match=r"factors for 2 of query, key and value(.|\n)*enable_lora"):
        open_checkpoint(folder)


@pytest.mark.parametrize("merged", [False, True])
def test_loralib_with_the_weights_beside(merged: bool, tmp_path: Path) -> None:
    """As train() and as eval(), which merges and keeps the factors, leave them."""
    stem = "vision_model.encoder.layers.{}.self_attn.{}.lora_{}"
    tensors = factors(2, stem)
    right = by_hand(tensors, 1.5, stem)
    from adamerge.checkpoints import open_clip_to_hf

    state = open_clip_to_hf(right) if merged else BASE
    check(written(tmp_path / "a", {**state, **tensors}, SMALL, "model.pt.safetensors"), right)
    key = "vision_model.encoder.layers.0.self_attn.q_proj.weight"
    other = written(tmp_path / "b", {**state, key: state[key] + 1, **tensors}, SMALL, "lora.safetensors")
    with pytest.raises(CheckpointError, match=r"q_proj.weight beside its factors, and it is neither"):
        expert(other)


# What is no plain LoRA, and what contradicts.


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"lora_bias": True}, "lora_bias"),
        ({"peft_type": "VERA"}, "VERA"),
        ({"peft_type": "ADALORA"}, "ADALORA"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"target_parameters": ["fc1.weight"]}, "target_parameters"),
        ({"init_lora_weights": "pissa"}, "changed weights of the base"),
        ({"of_next_year": 3}, "of_next_year=3"),
        ({"r": 3}, r"B \(16, 2\) and A \(2, 16\), but rank 3"),
        ({"rank_pattern": {"q_proj": 4}}, "but rank 4"),
        ({"alpha_pattern": {"(": 4}}, "no configuration of a LoRA"),
        ({"lora_alpha": None}, "no configuration of a LoRA"),
        ({"r": 0}, "at least 1"),
    ],
)
def test_what_would_mean_something_else_is_refused(change: dict[str, Any], text: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "a", factors(), {**KNOTS, **SMALL, **change})
    with pytest.raises(CheckpointError, match=text):
        expert(folder)


LAYER = "base_model.model.vision_model.encoder.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t.update({f"{LAYER}.lora_magnitude_vector": torch.ones(16)}), "DoRA"),
        (lambda t: t.update({f"{LAYER}.lora_B.bias": torch.ones(16)}), "lora_bias"),
        (lambda t: t.update({f"{LAYER}.lora_E": torch.ones(2, 1)}), "AdaLoRA"),
        (lambda t: t.update({"base_model.vera_A": torch.ones(2, 1)}), "VeRA"),
        (lambda t: t.update({f"{LAYER}.ia3_l": torch.ones(1, 16)}), "IA3"),
        (lambda t: t.update({f"{LAYER}.lora_C.weight": torch.ones(2, 2)}), "unknown kind of LoRA"),
        (lambda t: t.pop(f"{LAYER}.lora_B.weight"), "q_proj has only lora_A"),
        (lambda t: t.update({f"{LAYER}.lora_A.other.weight": torch.ones(2, 16)}), "several adapters"),
        (
            lambda t: t.update({f"{LAYER.replace('.0.', '.7.')}.lora_{s}.weight": torch.ones(v) for s, v in
                                {"A": (2, 16), "B": (16, 2)}.items()}),
            r"does not have: vision_model.encoder.layers.7.self_attn.q_proj",
        ),
        (
            lambda t: t.update({f"{LAYER[:-6]}k_proj.lora_A.weight": torch.ones(2, 24)}),
            r"make a \(16, 24\); the base has \(16, 16\)",
        ),
        (lambda t: t.update({f"{LAYER[:-16]}mlp.gate.weight": torch.ones(2)}), "not understood: vision_model"),
        (lambda t: t[f"{LAYER}.lora_A.weight"].fill_(float("nan")), "not finite"),
    ],
)  # fmt: skip
def test_tensors_that_are_no_plain_lora_are_refused(change: Any, text: str, tmp_path: Path) -> None:
    tensors = factors()
    change(tensors)
    with pytest.raises(CheckpointError, match=text):
        expert(written(tmp_path / "a", tensors, {**KNOTS, **SMALL}))


def test_without_its_configuration_there_is_no_scale(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no adapter_config.json(.|\n)*lora_alpha"):
        expert(written(tmp_path / "a", factors(), None))
    with pytest.raises(CheckpointError, match=r"LoRA that is not merged(.|\n)*adapter_config.json"):
        expert(written(tmp_path / "b", factors(), None, "lora.safetensors"))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "adapter_config.json").write_text(json.dumps(KNOTS))
    with pytest.raises(CheckpointError, match=r"holds no weights; expected one of adapter_model.safetensors"):
        expert(tmp_path / "c")


def test_by_itself_it_is_no_model(tmp_path: Path) -> None:
    folder = written(tmp_path / "a", factors(), {**KNOTS, **SMALL})
    with pytest.raises(CheckpointError, match="is a LoRA, which changes a base model"):
        open_checkpoint(folder).image_encoder()
    with pytest.raises(CheckpointError, match="is a LoRA, which changes a base model"):
        adamerge.open_pool(folder, {"a": BASE}, HEADS, backbone=MODEL)


def test_a_text_towers_adapter_is_no_image_encoders(tmp_path: Path) -> None:
    tensors = factors(2, STEM.replace("vision_model", "text_model"))
    with pytest.raises(CheckpointError, match="text tower alone"):
        expert(written(tmp_path / "a", tensors, {**KNOTS, **SMALL}))


# Heads.


def with_head(folder: Path, **config: Any) -> tuple[Path, dict[str, Tensor]]:
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual = adapting.open_clip().visual
            torch.manual_seed(2)
            self.classifier = nn.Linear(8, 3)

    adapt(Classifier(), folder, target_modules=["c_fc"], modules_to_save=["classifier"], **config)
    return folder, merged_by_peft(Classifier(), folder)


def test_a_head_in_modules_to_save_comes_through_or_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, merged = with_head(tmp_path / "a")
    base = {k: v for k, v in adapting.open_clip().state_dict().items() if k.startswith("visual.")}
    pool = adamerge.open_pool(base, {"a": folder}, {"a": folder}, backbone=MODEL)
    assert torch.equal(pool.heads["a"].weight, merged["classifier.weight"])
    assert torch.equal(pool.heads["a"].bias, merged["classifier.bias"])
    key = "visual.transformer.resblocks.1.mlp.c_fc.weight"
    torch.testing.assert_close(pool.expert("a")[key], merged[key], atol=1e-6, rtol=0)
    told = "holds a head (classifier.bias, classifier.weight), which is not used unless"
    assert told not in caplog.text  # it is used
    adamerge.open_pool(base, {"a": folder}, {"a": torch.randn(3, 8)}, backbone=MODEL)
    assert told in caplog.text


def test_a_classifier_on_other_features_is_refused(tmp_path: Path) -> None:
    config = CLIPConfig(
        vision_config={**VISION, "projection_dim": 16}, text_config=TEXT, projection_dim=16, num_labels=3
    )
    adapt(
        CLIPForImageClassification(config), tmp_path / "a", target_modules=ALL, modules_to_save=["classifier"]
    )
    for opened in (lambda: expert(tmp_path / "a"), lambda: open_checkpoint(tmp_path / "a").head()):
        with pytest.raises(CheckpointError, match=r"classifier of its own(.|\n)*mean over the patches"):
            opened()


def test_files_are_read_tensor_by_tensor_to_the_same_vectors(tmp_path: Path) -> None:
    from adamerge.models.slices import Slices, open_vectors

    adapt(hugging_face(), tmp_path / "a", target_modules=ALL, bias="all")
    adapt(hugging_face(), tmp_path / "b", 2, target_modules=["q_proj"], r=5, use_rslora=True)
    save_file(BASE, tmp_path / "base.safetensors")
    experts = {"a": tmp_path / "a", "b": tmp_path / "b"}
    slices = open_vectors(tmp_path / "base.safetensors", experts, MODEL)
    assert isinstance(slices, Slices)
    heads = {task: torch.randn(3, 8) for task in experts}
    pool = adamerge.open_pool(tmp_path / "base.safetensors", experts, heads, backbone=MODEL)
    assert slices.keys == pool.keys
    for key in pool.keys:
        assert torch.equal(slices.stack(key).flatten(1), pool.vectors[key]), key


def test_convert_lays_it_onto_its_base(tmp_path: Path) -> None:
    from adamerge.checkpoints.convert import convert

    tensors = factors()
    folder = written(tmp_path / "a", tensors, {**KNOTS, **SMALL})
    save_file(BASE, tmp_path / "base.safetensors")
    target = convert(folder, tmp_path / "out.safetensors", tmp_path / "base.safetensors")
    right = by_hand(tensors, 1.5)
    for key, value in load_file(target).items():
        torch.testing.assert_close(value, right[key], atol=1e-6, rtol=0, msg=key)
    with pytest.raises(CheckpointError, match="--base"):
        convert(folder)
    with pytest.raises(CheckpointError, match="no adapter"):
        convert(tmp_path / "base.safetensors", tmp_path / "x.safetensors", tmp_path / "base.safetensors")


def test_a_repository_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--hoffman-lab--KnOTS-ViT-B-32_lora_R16_mnist"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("0123abc")
    (repository / "snapshots").mkdir()
    tensors = factors(16)
    written(repository / "snapshots/0123abc", tensors, KNOTS)
    check(Path(locate("hf-hub:hoffman-lab/KnOTS-ViT-B-32_lora_R16_mnist")), by_hand(tensors, 1.0))


# Written by us.


@pytest.mark.parametrize("everywhere", [True, False])
def test_what_is_written_is_what_peft_reads(everywhere: bool, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    modules = [
        f"vision_model.encoder.layers.{i}.{name}" for i in (0, 1) for name in ("self_attn.v_proj", "mlp.fc2")
    ]
    modules = modules if everywhere else [*modules[1:], "visual_projection"]
    made = {}
    for rank, module in enumerate(modules, 1):
        height, width = BASE[f"{module}.weight"].shape
        up, down = (torch.randn(size, generator=generator) for size in ((height, rank), (rank, width)))
        made[module] = Factors(up, down, 0.5 * rank)
    write_adapter(tmp_path / "a", made, {"task": "a"}, base="someone/clip")
    merged = merged_by_peft(hugging_face(), tmp_path / "a")
    for module, found in made.items():
        torch.testing.assert_close(merged[f"{module}.weight"], BASE[f"{module}.weight"] + found.delta())
    check(tmp_path / "a", hf_to_open_clip(merged))
    config = json.loads((tmp_path / "a/adapter_config.json").read_text())
    assert config["target_modules"] == (["fc2", "v_proj"] if everywhere else modules)


# Plain vision transformers.

PLAIN_VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}


def hf_vit() -> nn.Module:
    torch.manual_seed(0)
    return ViTForImageClassification(ViTConfig(**PLAIN_VIT, intermediate_size=32, num_labels=3))


def dinov2() -> nn.Module:
    torch.manual_seed(0)
    return Dinov2Model(Dinov2Config(**PLAIN_VIT, mlp_ratio=2))


def timm_vit() -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    return VisionTransformer(8, 4, num_classes=3, embed_dim=16, depth=2, num_heads=2, mlp_ratio=2)


def saved_by_its_library(model: Any, folder: Path) -> dict[str, Tensor]:
    """The encoder of the file that the library writes: transformers 5 has other names in memory."""
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(folder)
        return open_checkpoint(folder / "model.safetensors").image_encoder()
    return open_checkpoint({key: value.clone() for key, value in model.state_dict().items()}).image_encoder()


@pytest.mark.parametrize(
    ("model", "targets", "head"),
    [
        (hf_vit, ["q_proj", "v_proj", "o_proj", "fc1", "fc2"], "classifier"),
        (dinov2, ["q_proj", "k_proj", "fc1", "fc2"], ""),
        (timm_vit, r"blocks\..*(qkv|proj|fc1|fc2)", "head"),
    ],
)
def test_plain_vision_transformers(model: Any, targets: Any, head: str, tmp_path: Path) -> None:
    adapt(
        model(),
        tmp_path / "a",
        target_modules=targets,
        bias="lora_only",
        modules_to_save=[head] if head else None,
    )
    merged = merged_by_peft(model(), tmp_path / "a")
    whole = model()
    before = saved_by_its_library(whole, tmp_path / "before")
    whole.load_state_dict(merged)
    right = saved_by_its_library(whole, tmp_path / "after")
    found = open_checkpoint(tmp_path / "a").on(before, "base").image_encoder()
    assert set(found) == set(right)
    for key, value in found.items():
        torch.testing.assert_close(value, right[key], atol=1e-6, rtol=0, msg=key)
    assert sum(not torch.equal(found[key], before[key]) for key in found) > 4
    if head:
        opened = open_checkpoint(tmp_path / "a").head()
        assert torch.equal(opened.weight, merged[f"{head}.weight"])
        assert not opened.normalize
    if model is not timm_vit:
        with pytest.raises(
            CheckpointError, match="is of a plain vision transformer, and the base clip is a CLIP"
        ):
            open_checkpoint(tmp_path / "a").on(hf_to_open_clip(BASE), "clip")


def test_the_names_of_transformers_4_are_the_same_places(tmp_path: Path) -> None:
    adapt(hf_vit(), tmp_path / "a", target_modules=["q_proj", "o_proj", "fc1", "fc2"])
    new = load_file(tmp_path / "a/adapter_model.safetensors")
    names = {
        "vit.layers": "vit.encoder.layer",
        "attention.q_proj": "attention.attention.query",
        "attention.o_proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    old = {}
    for key, value in new.items():
        for theirs, before in names.items():
            key = key.replace(theirs, before)
        old[key] = value
    base = saved_by_its_library(hf_vit(), tmp_path / "base")
    folders = tmp_path / "a", written(tmp_path / "b", old, SMALL)
    first, second = (open_checkpoint(folder).on(base, "base").image_encoder() for folder in folders)
    assert set(old) != set(new)
    assert all(torch.equal(value, second[key]) for key, value in first.items())
