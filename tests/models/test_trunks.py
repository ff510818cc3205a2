"""timm's models below a CLIP of open_clip's: SigLIP, PE, EVA02, ConvNeXt. Features are those of the model that
open_clip's own factory makes, an export is read back by it, and the parts that methods ask for are where they are."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import conv2d, gelu, layer_norm
from trunks import CLIP, CONVNEXT, EVA02, PE, SIGLIP, SQUASH, config, saved, tokenizer_folder

import adamerge
from adamerge.architecture import TIMM_TRUNK, family_of, fusing
from adamerge.checkpoints import open_checkpoint
from adamerge.errors import CheckpointError, ConfigError, PoolError
from adamerge.export.encoder import write_hf, write_open_clip
from adamerge.merging import Pool
from adamerge.merging.layers import layer_table, row_names
from adamerge.merging.matrices import as_matrices
from adamerge.methods import SurgeryV2, WEMoE
from adamerge.methods.prodistill import ElementWise
from adamerge.models.backbone import Backbone
from adamerge.models.blocks import recompute_blocks
from adamerge.models.pretrained import build_heads, pretrained_state
from adamerge.models.settling import picture_rules, settle
from adamerge.models.slices import open_vectors
from adamerge.picture_fit import Fit
from adamerge.report.depth import block, depth
from adamerge.rules.linear import TaskArithmetic
from adamerge.statistics.grams import collect_grams
from adamerge.tasks.images import resize_and_crop

KINDS = {"siglip": SIGLIP, "pe": PE, "eva02": EVA02, "convnext": CONVNEXT}
WITH_BLOCKS = {name: KINDS[name] for name in ("siglip", "pe", "eva02")}
TASKS = ("birds", "tools")


def images(model: dict[str, Any], count: int = 4) -> Tensor:
    side = model["vision_cfg"]["image_size"]
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(7))


def opened(model: dict[str, Any], home: Path, **options: Any) -> tuple[Pool, dict[str, Any]]:
    clips = {name: saved(model, home / name, seed) for seed, name in enumerate(("base", *TASKS))}
    heads = {task: torch.randn(3, model["embed_dim"]) for task in TASKS}
    return adamerge.open_pool(home / "base", {t: home / t for t in TASKS}, heads, **options), clips


@pytest.mark.parametrize("given", [True, False], ids=["backbone", "files"])
@pytest.mark.parametrize("model", KINDS.values(), ids=KINDS)
@torch.no_grad()
def test_features_are_those_of_open_clip_s_own_model(
    model: dict[str, Any], given: bool, tmp_path: Path
) -> None:
    pool, clips = opened(model, tmp_path, backbone=model if given else None)
    for task in TASKS:
        found = functional_call(pool.encoder, pool.expert(task), (images(model),))
        wanted = clips[task].encode_image(images(model))
        assert wanted.abs().mean() > 0.1
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert pool.backbone.embed_dim == found.shape[1]
    assert pool.encoder.pictures.mean == (0.5, 0.5, 0.5)
    assert pool.encoder.pictures.fit.resize == "squash"


@pytest.mark.parametrize("stated", [SQUASH, CLIP], ids=["squash", "clip"])
def test_pictures_are_prepared_as_open_clip_prepares_them(stated: dict[str, Any], tmp_path: Path) -> None:
    saved(SIGLIP, tmp_path / "birds", 1, stated)
    saved(SIGLIP, tmp_path / "base", 0, stated)
    pool = adamerge.open_pool(tmp_path / "base", {"birds": tmp_path / "birds"}, {"birds": torch.randn(3, 16)})
    generator = torch.Generator().manual_seed(0)
    picture = Image.fromarray(torch.randint(256, (20, 30, 3), generator=generator, dtype=torch.uint8).numpy())
    _, transform = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path / 'base'}")
    rules: Any = pool.encoder.pictures
    pixels = torch.from_numpy(resize_and_crop(picture, rules.fit).copy()).permute(2, 0, 1)[None]
    torch.testing.assert_close(rules.normalise(pixels)[0], transform(picture), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("model", KINDS.values(), ids=KINDS)
@torch.no_grad()
def test_a_merged_encoder_is_read_back_by_open_clip(model: dict[str, Any], tmp_path: Path) -> None:
    pool, _ = opened(model, tmp_path)
    merged = {**pool.base, **adamerge.merge(pool, rule="weight_average")}
    encoder: Any = pool.encoder
    base = pretrained_state(tmp_path / "base", model)
    write_open_clip(tmp_path / "out", merged, model, base, encoder.pictures)
    loaded, transform = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path / 'out'}")
    assert type(loaded).__name__ == ("CustomTextCLIP" if model.get("custom_text") else "CLIP")
    found = functional_call(pool.encoder, merged, (images(model),))
    torch.testing.assert_close(loaded.encode_image(images(model)), found, atol=1e-5, rtol=1e-5)
    for name in ("logit_scale", "logit_bias"):
        assert torch.equal(getattr(loaded, name), base[name]) if name in base else model is not SIGLIP
    assert tuple(transform.transforms[-1].mean) == (0.5, 0.5, 0.5)
    with pytest.raises(PoolError, match="timm's models below a CLIP"):
        write_hf(tmp_path / "hf", merged, model, encoder.pictures)


def siglip(state: dict[str, Tensor], pictures: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """SigLIP's image encoder, restated: (features (n, d), {key of a block's weight: the tokens that enter it})."""
    entering: dict[str, Tensor] = {}

    def norm(x: Tensor, name: str) -> Tensor:
        weight = state[f"visual.trunk.{name}.weight"]
        return layer_norm(x, weight.shape, weight, state[f"visual.trunk.{name}.bias"], 1e-6)

    def linear(x: Tensor, name: str) -> Tensor:
        entering[f"visual.trunk.{name}.weight"] = x
        return x @ state[f"visual.trunk.{name}.weight"].T + state[f"visual.trunk.{name}.bias"]

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        parts = [t.unflatten(-1, (2, 8)).transpose(1, 2) for t in (query, key, value)]
        mixed = torch.softmax(parts[0] @ parts[1].mT / math.sqrt(8), dim=-1) @ parts[2]
        return mixed.transpose(1, 2).flatten(2)

    patches = conv2d(
        pictures,
        state["visual.trunk.patch_embed.proj.weight"],
        state["visual.trunk.patch_embed.proj.bias"],
        4,
    )
    x = patches.flatten(2).mT + state["visual.trunk.pos_embed"]
    for i in range(2):
        stem = f"blocks.{i}"
        mixed = attend(*linear(norm(x, f"{stem}.norm1"), f"{stem}.attn.qkv").split(16, dim=-1))
        x = x + linear(mixed, f"{stem}.attn.proj")
        x = x + linear(gelu(linear(norm(x, f"{stem}.norm2"), f"{stem}.mlp.fc1")), f"{stem}.mlp.fc2")
    x = norm(x, "norm")
    latent = state["visual.trunk.attn_pool.latent"].expand(len(x), -1, -1)
    key, value = linear(x, "attn_pool.kv").split(16, dim=-1)
    pooled = linear(attend(linear(latent, "attn_pool.q"), key, value), "attn_pool.proj")
    inner = gelu(linear(norm(pooled, "attn_pool.norm"), "attn_pool.mlp.fc1"))
    pooled = pooled + linear(inner, "attn_pool.mlp.fc2")
    return pooled[:, 0], {key: value for key, value in entering.items() if ".blocks." in key}


def wide(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.double() for key, value in state.items()}


@torch.no_grad()
def test_siglip_and_its_gram_matrices_restated(tmp_path: Path) -> None:
    pool, _ = opened(SIGLIP, tmp_path)
    state, pictures = wide(pool.expert("tools")), images(SIGLIP).double()
    features, entering = siglip(state, pictures)
    torch.testing.assert_close(
        functional_call(pool.encoder, state, (pictures,)), features, rtol=1e-9, atol=1e-9
    )
    found = collect_grams(pool.encoder, state, pictures, device=torch.device("cpu"), batch_size=3)
    assert set(found) == set(entering)
    for key, tokens in entering.items():
        rows = tokens.flatten(0, 1)
        torch.testing.assert_close(found[key], rows.T @ rows / len(rows), rtol=1e-9, atol=1e-12)


@torch.no_grad()
def test_gram_matrices_where_query_key_and_value_are_apart_or_have_rotary_positions(tmp_path: Path) -> None:
    pool, _ = opened(PE, tmp_path / "pe")
    found = collect_grams(pool.encoder, pool.expert("birds"), images(PE), device=torch.device("cpu"))
    assert len(found) == 8
    pool, _ = opened(EVA02, tmp_path / "eva")
    with pytest.raises(PoolError, match=r"MLP of two linears, which visual\.trunk\.blocks\.0\.mlp is not"):
        collect_grams(pool.encoder, pool.expert("birds"), images(EVA02), device=torch.device("cpu"))


@torch.no_grad()
def test_mlps_are_mixed_as_wemoe_mixes_them(tmp_path: Path) -> None:
    """With gates at the coefficient, whatever the picture, it is task arithmetic."""
    for name in ("siglip", "pe"):
        pool, _ = opened(KINDS[name], tmp_path / name)
        ruled = TaskArithmetic(0.3)(pool)
        method = WEMoE(ruled, router_layers=0)
        x = images(KINDS[name])
        wanted = functional_call(pool.encoder, ruled.static(), (x,))
        torch.testing.assert_close(method.features(x), wanted, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(wanted, functional_call(pool.encoder, pool.base, (x,)), atol=1e-2)
    pool, _ = opened(EVA02, tmp_path / "eva02")
    with pytest.raises(PoolError, match="MLPs of two linears"):
        WEMoE(TaskArithmetic(0.3)(pool))


@torch.no_grad()
def test_blocks_of_a_trunk_are_watched_and_run(tmp_path: Path) -> None:
    for name, model in WITH_BLOCKS.items():
        pool, _ = opened(model, tmp_path / name)
        method = SurgeryV2(TaskArithmetic(0.3)(pool), rank=2)
        *means, feature = method.encode(images(model), "birds")
        assert [mean.shape[-1] for mean in means] == [16, 16]
        assert feature.shape == (4, model["embed_dim"])
    with pytest.raises(PoolError, match="rotary positions"):
        ElementWise(TaskArithmetic(0.3)(pool))
    pool, _ = opened(SIGLIP, tmp_path / "siglip")
    assert len(ElementWise(TaskArithmetic(0.3)(pool)).inner) == 24


@pytest.mark.parametrize("model", WITH_BLOCKS.values(), ids=WITH_BLOCKS)
def test_blocks_that_run_again_in_the_backward_pass_give_the_same_gradient(
    model: Any, tmp_path: Path
) -> None:
    pool, _ = opened(model, tmp_path)
    gradients = []
    for again in (False, True):
        if again:
            recompute_blocks(pool.encoder)
        state = {key: value.clone().requires_grad_() for key, value in pool.expert("birds").items()}
        functional_call(pool.encoder, state, (images(model),)).square().sum().backward()
        gradients.append({key: value.grad for key, value in state.items()})
    for key, value in gradients[0].items():
        assert value is not None
        torch.testing.assert_close(gradients[1][key], value, atol=1e-5, rtol=1e-5)


def test_an_encoder_without_blocks_says_so(tmp_path: Path) -> None:
    pool, _ = opened(CONVNEXT, tmp_path)
    ruled = TaskArithmetic(0.3)(pool)
    for method in (WEMoE, SurgeryV2, ElementWise):
        with pytest.raises(PoolError, match="blocks of a vision transformer; the encoder has none"):
            method(ruled)
    with pytest.raises(PoolError, match="the encoder has none"):
        adamerge.merge(pool, rule="task_arithmetic", post="lines")


NAMED = ["ViT-B-16-SigLIP", "ViT-B-16-SigLIP2-256", "PE-Core-B-16", "EVA02-B-16"]


@pytest.mark.parametrize("name", NAMED)
def test_the_backbone_says_what_the_trunk_has(name: str) -> None:
    backbone = Backbone.of(name)
    shapes, names = backbone.shapes(), backbone.names
    assert tuple(shapes[names.positions].shape) == (1, backbone.tokens, backbone.width)
    assert tuple(shapes[names.patches].shape) == (backbone.width, 3, backbone.patch, backbone.patch)
    assert {names.block_of(key) for key in shapes} == {None, *range(backbone.blocks)}
    attention = backbone.build().get_submodule(f"{names.block(0)}.attn")
    assert attention.num_heads == backbone.attention_heads
    weights = [names.fused] if names.fused else list(names.apart)
    last = names.block(backbone.blocks - 1)
    assert all(f"{last}.{weight.format(kind='weight')}" in shapes for weight in weights)
    assert f"{last}.{names.attention_out}.weight" in shapes
    if names.mlp_in:
        assert all(key in shapes for key in names.mlp_keys(0).values())
    assert all(
        names.is_output(k) for k in shapes if k.startswith(("visual.head.", "visual.trunk.attn_pool."))
    )
    rules = picture_rules(name)
    published = open_clip.get_pretrained_cfg(name, open_clip.list_pretrained_tags_by_model(name)[0])
    assert (rules.mean, rules.std) == (published["mean"], published["std"])
    assert (rules.fit.resize, rules.fit.interpolation) == (
        published["resize_mode"],
        published["interpolation"],
    )


def test_matrices_are_cut_where_query_key_and_value_meet() -> None:
    shapes = Backbone.of(SIGLIP).shapes()
    qkv, kv = "visual.trunk.blocks.1.attn.qkv.weight", "visual.trunk.attn_pool.kv.weight"
    for key, parts in ((qkv, 3), (kv, 2)):
        stack = torch.randn(2, *shapes[key].shape)
        found = as_matrices(key, stack)
        assert [m.shape for m in found] == [(2, 16, 16)] * parts
        torch.testing.assert_close(torch.cat(found, dim=1), stack)
        assert len(as_matrices(key, stack, "together")) == 1
    rows = row_names(layer_table([qkv, kv, "visual.trunk.attn_pool.q.weight"], "hf"))
    assert rows == (
        *(f"visual.trunk.blocks.1.attn.{part}.weight" for part in "qkv"),
        *(f"visual.trunk.attn_pool.{part}.weight" for part in "kv"),
        "visual.trunk.attn_pool.q.weight",
    )
    assert fusing("visual.trunk.attn_pool.proj.weight") is None
    assert [TIMM_TRUNK.is_key_bias(f"visual.trunk.attn_pool.{p}.bias") for p in "qkv"] == [False, True, False]
    assert family_of(qkv) is TIMM_TRUNK
    assert (block(qkv), block(kv), block("visual.trunk.pos_embed")) == ("block 1", "output", "input")
    assert depth("visual.trunk.pos_embed") < depth(qkv) < depth("visual.trunk.norm.weight")


@torch.no_grad()
def test_positions_of_another_size_are_resized_as_open_clip_does(tmp_path: Path) -> None:
    larger = {**SIGLIP, "vision_cfg": {**SIGLIP["vision_cfg"], "image_size": 16}}
    pool, clips = opened(SIGLIP, tmp_path, backbone=larger, resize_positions=True)
    clips["tools"].visual.set_input_size(16)
    wanted = clips["tools"].encode_image(images(larger))
    found = functional_call(pool.encoder, pool.expert("tools"), (images(larger),))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert pool.encoder.pictures.fit == Fit(16, "squash")
    assert pool.backbone.tokens == 16
    base = pretrained_state(tmp_path / "base", SIGLIP)
    with pytest.raises(
        CheckpointError, match=r"trunk.pos_embed \(1, 4, 16\).*\(1, 16, 16\): it is for pictures of another"
    ):
        write_open_clip(tmp_path / "out", pool.expert("tools"), larger, base, pool.encoder.pictures)  # type: ignore[arg-type]
    with pytest.raises(PoolError, match=r"image_size"):
        opened(SIGLIP, tmp_path, backbone=larger)


@torch.no_grad()
def test_a_streamed_merge_reads_the_same_task_vectors(tmp_path: Path) -> None:
    pool, _ = opened(SIGLIP, tmp_path)
    vectors = open_vectors(tmp_path / "base", {t: tmp_path / t for t in TASKS}, SIGLIP)
    assert set(vectors.keys) == set(pool.keys)
    for key in vectors.keys:
        assert torch.equal(vectors.stack(key).flatten(1), pool.vectors[key])


def test_heads_from_prompts_are_open_clip_s_own_probabilities(tmp_path: Path) -> None:
    folder = tokenizer_folder(tmp_path / "tokens")
    model = {**SIGLIP, "text_cfg": {**SIGLIP["text_cfg"], "hf_tokenizer_name": str(folder)}}
    clip = saved(model, tmp_path / "base", 0)
    prompts = ["a photo of a bird", "a photo of a tool", "a sign"]
    found = build_heads(pretrained_state(tmp_path / "base", model), model, {"birds": [[p] for p in prompts]})
    tokenizer = open_clip.tokenizer.HFTokenizer(str(folder), context_length=8)
    with torch.no_grad():
        wanted, _ = clip.get_logits(images(SIGLIP), tokenizer(prompts))
        features = torch.nn.functional.normalize(clip.encode_image(images(SIGLIP)), dim=-1)
    logits = features @ found["birds"].T
    torch.testing.assert_close(logits.softmax(-1), wanted.softmax(-1), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(logits + clip.logit_bias, wanted, atol=1e-4, rtol=1e-4)


def test_a_tokenizer_that_is_not_there_is_named(tmp_path: Path) -> None:
    model = {**SIGLIP, "text_cfg": {**SIGLIP["text_cfg"], "hf_tokenizer_name": "nobody/no-tokenizer"}}
    saved(SIGLIP, tmp_path / "base", 0)
    with pytest.raises(CheckpointError, match=r"'nobody/no-tokenizer'.*\n.*download=true.*prototypes"):
        build_heads(pretrained_state(tmp_path / "base", model), model, {"birds": [["a bird"]]})


def test_files_of_every_form_hold_the_same_encoder(tmp_path: Path) -> None:
    saved(SIGLIP, tmp_path / "base", 0)
    state = load_file(tmp_path / "base" / "open_clip_model.safetensors")
    wanted = {key: value for key, value in state.items() if key.startswith("visual.")}
    forms = {
        "wrapped": {f"module.{key}": value for key, value in state.items()},
        "tower": {key.removeprefix("visual."): value for key, value in wanted.items()},
        "with_head": {**wanted, "classification_head.weight": torch.randn(3, 16)},
    }
    for name, tensors in forms.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
        checkpoint = open_checkpoint(tmp_path / f"{name}.safetensors")
        found = checkpoint.image_encoder()
        assert checkpoint.keys == "open_clip"
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    head = open_checkpoint(tmp_path / "with_head.safetensors").head()
    assert head.normalize
    save_file(
        {**wanted, "visual.trunk_of_another": torch.ones(2), "stray": torch.ones(2)},
        tmp_path / "stray.safetensors",
    )
    with pytest.raises(CheckpointError, match="not understood: stray"):
        open_checkpoint(tmp_path / "stray.safetensors").image_encoder()


def test_what_does_not_fit_is_said_in_trunks_words(tmp_path: Path) -> None:
    saved(SIGLIP, tmp_path / "base", 0)
    saved(PE, tmp_path / "birds", 1)
    (tmp_path / "birds" / "open_clip_config.json").unlink()
    with pytest.raises(
        PoolError, match=r"does not fit the base model a timm trunk of width 16, 2 blocks, patch 4"
    ):
        adamerge.open_pool(tmp_path / "base", {"birds": tmp_path / "birds" / "open_clip_model.safetensors"},
                           {"birds": torch.randn(3, 16)}, backbone=SIGLIP)  # fmt: skip


def test_nothing_is_taken_for_granted_of_a_trunk(tmp_path: Path) -> None:
    saved(SIGLIP, tmp_path / "base", 0)
    (tmp_path / "base" / "open_clip_config.json").unlink()
    heads = {"birds": torch.randn(3, 16)}
    with pytest.raises(
        PoolError, match=r"do not tell which of timm's models it is: a timm trunk of width 16"
    ):
        adamerge.open_pool(tmp_path / "base", {"birds": tmp_path / "base"}, heads)
    with pytest.raises(
        PoolError, match=r"how pictures are prepared for vit_nano_patch4_siglip_8: mean, std, resize"
    ):
        settle(SIGLIP, {})
    assert settle(SIGLIP, {}, [0.5] * 3, [0.5] * 3, resize="squash").pictures.fit == Fit(8, "squash")
    clip = settle("ViT-B-16-SigLIP", {}).pictures
    assert (clip.fit, clip.mean) == (Fit(224, "squash"), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("model", "reason"),
    [("RN50", "ResNet with BatchNorm"), ("MobileCLIP-S1", "'fastvit_mci1' has BatchNorm"),
     ("swin_base_patch4_window7_224", "SwinTransformer"), ("ViTamin-B", "behind a stem of its own"),
     (config("nonsense", "avg", "linear", 8), "timm knows no model 'nonsense'")],
    ids=str,
)  # fmt: skip
def test_other_encoders_are_refused_by_name(model: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        Backbone.of(model)
