"""Plain vision transformers of transformers and timm: the pool's features are the library's own, and an export is read
back by it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import adamerge
from adamerge.checkpoints import open_checkpoint
from adamerge.checkpoints.vits import vit_to_open_clip
from adamerge.errors import CheckpointError, ConfigError, PoolError
from adamerge.export.encoder import write_hf
from adamerge.export.timm import write_timm
from adamerge.merging import Pool
from adamerge.models.backbone import Backbone
from adamerge.models.pictures import PictureRules
from adamerge.models.settling import picture_rules
from adamerge.picture_fit import Fit

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}
TASKS = ("birds", "tools")
CLASSES = {"birds": 3, "tools": 5}


def hf_vit(classes: int) -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig(**SIZES, intermediate_size=24, num_labels=classes))


def hf_deit(classes: int) -> nn.Module:
    from transformers import DeiTConfig, DeiTForImageClassification

    return DeiTForImageClassification(DeiTConfig(**SIZES, intermediate_size=24, num_labels=classes))


def hf_dinov2(classes: int) -> nn.Module:
    from transformers import Dinov2Config, Dinov2Model

    return Dinov2Model(Dinov2Config(**SIZES, mlp_ratio=2, layerscale_value=0.5))


def hf_dinov2_registers(classes: int) -> nn.Module:
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    return Dinov2WithRegistersModel(
        Dinov2WithRegistersConfig(**SIZES, mlp_ratio=2, layerscale_value=0.5, num_register_tokens=3)
    )


def timm_registers(classes: int) -> nn.Module:
    return timm_vit(classes, reg_tokens=3, no_embed_class=True, init_values=0.5)


def timm_vit(classes: int, **options: Any) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    sizes: dict[str, Any] = {
        "embed_dim": 16,
        "depth": 2,
        "num_heads": 2,
        "img_size": 8,
        "patch_size": 4,
        "mlp_ratio": 2,
    }
    return VisionTransformer(**sizes, num_classes=classes, **options)


def hf_features(model: nn.Module, images: Tensor) -> Tensor:
    inner = getattr(model, "vit", model)
    return inner(images).last_hidden_state[:, 0]


def timm_features(model: nn.Module, images: Tensor) -> Tensor:
    return model.forward_head(model.forward_features(images), pre_logits=True)


def shaken(make: Callable[[int], nn.Module], classes: int, seed: int) -> nn.Module:
    """Random weights of a size at which every part matters."""
    torch.manual_seed(seed)
    model = make(classes).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.3 * torch.randn_like(value))
    return model


def saved(model: nn.Module, folder: Path) -> Path:
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(folder)
        return folder
    folder.mkdir(parents=True)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    return folder / "model.safetensors"


def opened(base: Path, experts: dict[str, Path], heads: dict[str, Any], backbone: Any = None) -> Pool:
    return adamerge.open_pool(base, experts, heads, backbone=backbone)


def timm_backbone(**more: Any) -> dict[str, Any]:
    """timm's files say no number of attention heads; a name of timm's does, or a configuration."""
    sizes = {"image_size": 8, "layers": 2, "width": 16, "head_width": 8, "patch_size": 4, "mlp_ratio": 2}
    vision = {**sizes, "norm_kwargs": {"eps": 1e-6}, "no_ln_pre": True, **more}
    return {"embed_dim": 16, "quick_gelu": False, "vision_cfg": vision}


IMAGES = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("make", "features", "backbone"),
    [(hf_vit, hf_features, None), (hf_dinov2, hf_features, None), (timm_vit, timm_features, timm_backbone()),
     (lambda n: timm_vit(n, init_values=0.5, pre_norm=True), timm_features,
      timm_backbone(no_ln_pre=False, ls_init_value=0.5)),
     (hf_dinov2_registers, hf_features, None),
     (timm_registers, timm_features, timm_backbone(register_tokens=3, ls_init_value=0.5)),
     (lambda n: timm_vit(n, no_embed_class=True), timm_features, timm_backbone())],
    ids=["hf_vit", "hf_dinov2", "timm", "timm_norm_scale", "hf_registers", "timm_registers", "timm_no_embed_class"],
)  # fmt: skip
def test_features_are_the_library_s_own(make: Any, features: Any, backbone: Any, tmp_path: Path) -> None:
    base = shaken(make, 2, 0)
    models = {task: shaken(make, CLASSES[task], seed) for seed, task in enumerate(TASKS, 1)}
    files = {task: saved(model, tmp_path / task) for task, model in models.items()}
    own = features is timm_features or make is hf_vit
    heads = {t: files[t] if own else torch.randn(CLASSES[t], 16) for t in TASKS}
    pool = opened(saved(base, tmp_path / "base"), files, heads, backbone)
    with torch.no_grad():
        for task, model in models.items():
            state = pool.expert(task)
            found = torch.func.functional_call(pool.encoder, state, (IMAGES,))
            torch.testing.assert_close(found, features(model, IMAGES), atol=1e-5, rtol=1e-5)
            if own:
                logits = model(IMAGES)
                logits = getattr(logits, "logits", logits)
                torch.testing.assert_close(pool.heads[task].logits(found), logits, atol=1e-5, rtol=1e-5)
    assert pool.backbone.blocks == 2
    assert pool.backbone.embed_dim == 16


@pytest.mark.parametrize("make", [hf_vit, hf_dinov2, hf_dinov2_registers])
def test_a_merged_encoder_is_read_back_by_transformers(make: Any, tmp_path: Path) -> None:
    from transformers import AutoModel

    files = {t: saved(shaken(make, 2, seed), tmp_path / t) for seed, t in enumerate(TASKS, 1)}
    pool = opened(saved(shaken(make, 2, 0), tmp_path / "base"), files, {t: torch.randn(3, 16) for t in TASKS})
    merged = {**pool.base, **adamerge.merge(pool, rule="weight_average")}
    encoder: Any = pool.encoder
    write_hf(tmp_path / "out", merged, encoder.backbone.model, encoder.pictures)
    loaded = AutoModel.from_pretrained(tmp_path / "out").eval()
    assert (
        type(loaded).__name__
        == {
            hf_vit: "ViTModel",
            hf_dinov2: "Dinov2Model",
            hf_dinov2_registers: "Dinov2WithRegistersModel",
        }[make]
    )
    with torch.no_grad():
        expected = torch.func.functional_call(pool.encoder, merged, (IMAGES,))
        found = loaded(IMAGES).last_hidden_state[:, 0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    again = open_checkpoint(tmp_path / "out").image_encoder()
    assert all(torch.equal(again[key], value) for key, value in merged.items())


@pytest.mark.parametrize(
    ("make", "backbone"),
    [(timm_vit, {}), (timm_registers, {"register_tokens": 3, "ls_init_value": 0.5}),
     (lambda n: timm_vit(n, init_values=0.5, pre_norm=True), {"no_ln_pre": False, "ls_init_value": 0.5})],
    ids=["plain", "registers", "pre_norm_layer_scale"],
)  # fmt: skip
def test_a_merged_encoder_is_read_back_by_timm(make: Any, backbone: Any, tmp_path: Path) -> None:
    import timm

    files = {t: saved(shaken(make, 2, seed), tmp_path / t) for seed, t in enumerate(TASKS, 1)}
    heads = {t: torch.randn(3, 16) for t in TASKS}
    pool = opened(saved(shaken(make, 2, 0), tmp_path / "base"), files, heads, timm_backbone(**backbone))
    merged = {**pool.base, **adamerge.merge(pool, rule="weight_average")}
    encoder: Any = pool.encoder
    rules = PictureRules(Fit(8, "shortest", 10, "bilinear"), (0.5,) * 3, (0.25,) * 3)
    (tmp_path / "out").mkdir()
    write_timm(tmp_path / "out", merged, encoder.backbone.model, rules)
    loaded = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    with torch.no_grad():
        expected = torch.func.functional_call(pool.encoder, merged, (IMAGES,))
        torch.testing.assert_close(loaded(IMAGES), expected, atol=1e-5, rtol=1e-5)
    stated = timm.data.resolve_model_data_config(loaded)
    assert (stated["input_size"], stated["interpolation"], stated["crop_pct"]) == ((3, 8, 8), "bilinear", 0.8)
    assert [*stated["mean"], *stated["std"]] == [0.5] * 3 + [0.25] * 3
    again = opened(tmp_path / "out", files, heads, timm_backbone(**backbone))
    with torch.no_grad():
        torch.testing.assert_close(
            torch.func.functional_call(again.encoder, again.base, (IMAGES,)), expected, atol=1e-5, rtol=1e-5
        )


def test_pictures_are_prepared_as_the_files_beside_the_weights_say(tmp_path: Path) -> None:
    folder = saved(shaken(hf_vit, 2, 0), tmp_path / "base")
    rules = {
        "size": {"height": 8, "width": 8},
        "resample": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(rules))
    expert = saved(shaken(hf_vit, 3, 1), tmp_path / "birds")
    pool = opened(folder, {"birds": expert}, {"birds": expert})
    assert pool.encoder.pictures.fit == Fit(8, "squash", None, "bilinear")
    assert pool.encoder.pictures.mean == (0.5, 0.5, 0.5)


def test_dinov2_s_crop_of_a_larger_picture(tmp_path: Path) -> None:
    folder = saved(shaken(hf_dinov2, 2, 0), tmp_path / "base")
    rules = {"size": {"shortest_edge": 10}, "crop_size": {"height": 8, "width": 8}, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps({**rules, "do_center_crop": True}))
    expert = saved(shaken(hf_dinov2, 3, 1), tmp_path / "birds")
    pool = opened(folder, {"birds": expert}, {"birds": torch.randn(3, 16)})
    assert pool.encoder.pictures.fit == Fit(8, "shortest", 10, "bicubic")

    backbone: Any = pool.encoder.backbone
    larger = {**backbone.model, "vision_cfg": {**backbone.model["vision_cfg"], "image_size": 16}}
    settled = PictureRules(Fit(16, "shortest", 20, "bicubic"))
    for given in (None, settled):  # a run settles it, then opens its pool
        resized = adamerge.open_pool(
            folder,
            {"birds": expert},
            {"birds": torch.randn(3, 16)},
            larger,
            pictures=given,
            resize_positions=True,
        )
        assert resized.encoder.pictures.fit == Fit(16, "shortest", 20, "bicubic")


def test_the_eps_of_the_norms_is_the_one_that_the_files_state(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(**SIZES, intermediate_size=24, num_labels=3, layer_norm_eps=0.5)
    models = [ViTForImageClassification(config).eval() for _ in range(2)]
    files = [saved(model, tmp_path / str(index)) for index, model in enumerate(models)]
    pool = opened(files[0], {"birds": files[1]}, {"birds": files[1]})
    with torch.no_grad():
        found = torch.func.functional_call(pool.encoder, pool.expert("birds"), (IMAGES,))
        torch.testing.assert_close(found, hf_features(models[1], IMAGES), atol=1e-5, rtol=1e-5)


def test_register_tokens_are_merged_like_any_tensor(tmp_path: Path) -> None:
    models: dict[str, Any] = {t: shaken(hf_dinov2_registers, 2, seed) for seed, t in enumerate(TASKS, 1)}
    files = {t: saved(model, tmp_path / t) for t, model in models.items()}
    base = saved(shaken(hf_dinov2_registers, 2, 0), tmp_path / "base")
    pool = opened(base, files, {t: torch.randn(3, 16) for t in TASKS})
    assert pool.backbone.tokens == 4 + 1 + 3
    mean = torch.stack([model.embeddings.register_tokens[0] for model in models.values()]).mean(dim=0)
    merged = adamerge.merge(pool, rule="weight_average")
    torch.testing.assert_close(merged["visual.register_tokens"], mean.detach())
    assert "visual.register_tokens" in pool.vectors


def test_another_number_of_register_tokens_does_not_fit(tmp_path: Path) -> None:
    base = saved(shaken(hf_dinov2_registers, 2, 0), tmp_path / "base")
    other = saved(shaken(hf_dinov2, 2, 1), tmp_path / "birds")
    with pytest.raises(PoolError, match="register_tokens"):
        opened(base, {"birds": other}, {"birds": torch.randn(3, 16)})
    mixed = shaken(lambda n: timm_vit(n, reg_tokens=3), 2, 0)  # registers with positions of their own
    with pytest.raises(CheckpointError, match="8 positions, for 3 register tokens"):
        open_checkpoint(saved(mixed, tmp_path / "mixed")).image_encoder()


def test_dinov2_s_own_classifier_stands_on_other_features(tmp_path: Path) -> None:
    from transformers import Dinov2Config, Dinov2ForImageClassification

    model = Dinov2ForImageClassification(Dinov2Config(**SIZES, mlp_ratio=2, num_labels=3))
    model.save_pretrained(tmp_path / "expert")
    with pytest.raises(CheckpointError, match=r"classifier of its own.*\(3, 32\)"):
        open_checkpoint(tmp_path / "expert").image_encoder()


def test_tensors_that_are_not_understood_are_named(tmp_path: Path) -> None:
    file = saved(shaken(timm_vit, 2, 0), tmp_path / "base")
    save_file({**load_file(file), "blocks.0.attn.q_norm.weight": torch.ones(8)}, file)
    with pytest.raises(CheckpointError, match=r"not understood: blocks\.0\.attn\.q_norm\.weight"):
        open_checkpoint(file).image_encoder()


def test_an_expert_with_a_wider_mlp_does_not_fit(tmp_path: Path) -> None:
    base = saved(shaken(hf_vit, 2, 0), tmp_path / "base")
    expert = saved(shaken(timm_vit, 3, 1), tmp_path / "birds")
    with pytest.raises(PoolError, match="does not fit"):
        opened(base, {"birds": expert}, {"birds": torch.randn(3, 16)})


@pytest.mark.parametrize(
    ("name", "fit"),
    [("vit_tiny_patch16_224", Fit(224, "shortest", 248)), ("vit_small_patch14_dinov2", Fit(518)),
     ("deit_tiny_patch16_224", Fit(224, "shortest", 248)), ("vit_small_patch14_reg4_dinov2", Fit(518))],
)  # fmt: skip
def test_a_name_of_timm_s_is_a_backbone(name: str, fit: Any) -> None:
    import timm

    with torch.device("meta"):
        own = timm.create_model(name, num_classes=0)
    backbone = Backbone.of(f"timm:{name}", picture_rules(f"timm:{name}"))
    renamed = vit_to_open_clip(own.state_dict())
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in backbone.shapes().items()}
    assert backbone.attention_heads == own.blocks[0].attn.num_heads
    assert backbone.pictures.fit == fit
    assert backbone.pictures.mean == tuple(own.default_cfg["mean"])


@pytest.mark.parametrize(
    ("name", "reason"),
    [("resnet18", "it is a ResNet"), ("nonsense", "no model"),
     ("vit_base_patch16_siglip_224", "pools its tokens")],
)  # fmt: skip
def test_what_is_no_plain_vit_of_timm_s_is_refused(name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        Backbone.of(f"timm:{name}")
