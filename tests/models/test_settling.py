"""What the files beside the weights state is used where the backbone leaves it open, and contradictions refuse."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints.formats import MODEL, tiny_clip, vision_state
from safetensors.torch import save_file
from torch import Tensor, nn

import adamerge
from adamerge.checkpoints import open_clip_to_hf
from adamerge.checkpoints.stated import Stated
from adamerge.errors import CheckpointError, PoolError
from adamerge.models.clip import Model, at_size, build_clip
from adamerge.models.pictures import MEAN, STD, PictureRules
from adamerge.models.settling import settle, stated_of
from adamerge.picture_fit import Fit

HALF = [0.5, 0.5, 0.5]
HEADS = {"Cars": torch.ones(3, 8)}
VISION = {
    "model_type": "clip_vision_model",
    "hidden_act": "quick_gelu",
    "num_attention_heads": 2,
    "image_size": 8,
}
PROCESSOR = {"image_mean": HALF, "image_std": HALF, "size": {"shortest_edge": 8}, "crop_size": 8}


def folder(root: Path, name: str, state: Mapping[str, Tensor], **configs: object) -> Path:
    path = root / name
    path.mkdir(parents=True)
    save_file({k: v.contiguous() for k, v in open_clip_to_hf(state).items()}, path / "model.safetensors")
    for config, content in configs.items():
        (path / f"{config}.json").write_text(json.dumps(content))
    return path


def opened(
    tmp_path: Path, backbone: Model | None = MODEL, expert: dict[str, Any] | None = None, **base: Any
) -> Any:
    return adamerge.open_pool(
        folder(tmp_path, "base", vision_state(), **base),
        {"Cars": folder(tmp_path, "cars", vision_state(1), **(expert or {}))},
        HEADS,
        backbone=backbone,
    )


def features(model: Model, mean: Any = MEAN, std: Any = STD) -> Tensor:
    """By hand: the public formula of the pictures, and open_clip's own encoder."""
    clip = build_clip(model)
    clip.load_state_dict(vision_state(), strict=False)
    mean, std = (torch.tensor(c).view(3, 1, 1) for c in (mean, std))
    with torch.no_grad():
        return clip.encode_image((pixels().float() / 255 - mean) / std)


def pixels() -> Tensor:
    return torch.randint(0, 256, (2, 3, 8, 8), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)


def of_base(pool: Any) -> Tensor:
    return torch.func.functional_call(pool.encoder, pool.base, (pixels(),))


@pytest.mark.parametrize("where", ["preprocessor_config", "processor_config"])
def test_mean_and_deviation_of_the_files_are_used(tmp_path: Path, where: str) -> None:
    content = PROCESSOR if where == "preprocessor_config" else {"image_processor": PROCESSOR}
    pool = opened(tmp_path, **{where: content})
    torch.testing.assert_close(of_base(pool), features(MODEL, HALF, HALF))
    assert pool.encoder.pictures == PictureRules(Fit(8), (0.5,) * 3, (0.5,) * 3)


def test_without_files_they_are_clip_s(tmp_path: Path) -> None:
    torch.testing.assert_close(of_base(opened(tmp_path)), features(MODEL))


OPEN = {**MODEL, "vision_cfg": {k: v for k, v in MODEL["vision_cfg"].items() if k != "head_width"}}
del OPEN["quick_gelu"]


@pytest.mark.parametrize("backbone", [OPEN, None], ids=["left open", "not given"])
@pytest.mark.parametrize(("act", "heads"), [("gelu", 4), ("quick_gelu", 4), ("gelu", 1)])
def test_activation_and_heads_are_the_files_where_the_backbone_leaves_them_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, backbone: Model | None, act: str, heads: int
) -> None:
    config = {**VISION, "hidden_act": act, "num_attention_heads": heads}
    pool = opened(tmp_path, backbone, config=config, preprocessor_config=PROCESSOR)
    width = {**MODEL["vision_cfg"], "head_width": 16 // heads}
    expected = features({**MODEL, "quick_gelu": act == "quick_gelu", "vision_cfg": width}, HALF, HALF)
    torch.testing.assert_close(of_base(pool), expected)
    assert "No backbone given" not in caplog.text


def test_open_clip_s_config_says_the_same_things(tmp_path: Path) -> None:
    model = {**MODEL, "quick_gelu": False, "vision_cfg": {**MODEL["vision_cfg"], "head_width": 4}}
    content = {"model_cfg": model, "preprocess_cfg": {"mean": HALF, "std": HALF}}
    pool = opened(tmp_path, None, open_clip_config=content)
    torch.testing.assert_close(of_base(pool), features(model, HALF, HALF))


def test_a_guess_names_everything_that_shapes_cannot_tell(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(tmp_path, None)
    for part in ("1 attention head of 16", "QuickGELU", "mean and standard deviation", "8 px"):
        assert part in caplog.text
    caplog.clear()
    opened(tmp_path / "again", None, config={"model_type": "clip_vision_model", "num_attention_heads": 2})
    assert "attention head" not in caplog.text
    assert "QuickGELU" in caplog.text


CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "activation": (
        {"config": {**VISION, "hidden_act": "gelu"}},
        r"backbone says quick_gelu.*config.json: hidden_act.*gelu",
    ),
    "heads": (
        {"config": {**VISION, "num_attention_heads": 4}},
        r"backbone says 2.*num_attention_heads\) says 4",
    ),
    "image size": (
        {"config": {**VISION, "image_size": 12}},
        r"backbone says 8.*says 12(.|\n)*resize_positions",
    ),
    "crop": ({"preprocessor_config": {"size": 12, "crop_size": 12}}, r"image_size: the backbone says 8"),
    "open_clip": (
        {"open_clip_config": {"model_cfg": {**MODEL, "quick_gelu": False}}},
        "activation: the backbone",
    ),
}
BEYOND: dict[str, tuple[dict[str, Any], str]] = {
    "activation": ({"config": {**VISION, "hidden_act": "relu"}}, "the activation relu"),
    "eps": ({"config": {**VISION, "layer_norm_eps": 1e-6}}, "eps 1e-06"),
    "classifier": (
        {"config": {**VISION, "architectures": ["CLIPForImageClassification"]}},
        "a classifier of its own",
    ),
    "no normalisation": ({"preprocessor_config": {"do_normalize": False}}, "pictures without normalize"),
    "scale": ({"preprocessor_config": {"rescale_factor": 1 / 127.5}}, "pixels scaled by"),
    "filter": ({"preprocessor_config": {"resample": 0}}, "PIL's filter 0, neither bicubic nor bilinear"),
    "stretched": ({"preprocessor_config": {"size": {"height": 8, "width": 6}}}, "stretched to 8 x 6"),
    "borders": ({"preprocessor_config": {"size": 6, "crop_size": 8}}, "of 6 pixels with borders up to 8"),
    "longest": (
        {"open_clip_config": {"preprocess_cfg": {"resize_mode": "longest"}}},
        "resizing by 'longest'",
    ),
}


@pytest.mark.parametrize("kind", CONTRADICTIONS)
@pytest.mark.parametrize("side", ["base", "expert"])
def test_a_contradiction_refuses_and_says_which_side_says_what(tmp_path: Path, kind: str, side: str) -> None:
    files, message = CONTRADICTIONS[kind]
    with pytest.raises(PoolError, match=message):
        opened(tmp_path, **(files if side == "base" else {"expert": files}))


@pytest.mark.parametrize("kind", BEYOND)
def test_what_no_backbone_does_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    files, message = BEYOND[kind]
    with pytest.raises(PoolError, match=rf"{message}(.|\n)*which no backbone here does"):
        opened(tmp_path, **files)


def test_base_and_expert_that_see_their_pictures_differently(tmp_path: Path) -> None:
    other = {"preprocessor_config": {"image_mean": list(MEAN), "image_std": list(STD)}}
    with pytest.raises(PoolError, match=r"mean: the base .* says \(0.5(.|\n)*Cars .* says \(0.48"):
        opened(tmp_path, preprocessor_config=PROCESSOR, expert=other)


def test_a_backbone_that_speaks_is_compared(tmp_path: Path) -> None:
    stated = stated_of(folder(tmp_path, "x", vision_state(), preprocessor_config=PROCESSOR))
    with pytest.raises(PoolError, match=r"mean: the backbone says \(0.4(.|\n)*backbone.mean=\[0.5,0.5,0.5\]"):
        settle(MODEL, {"the base": stated}, mean=MEAN, std=STD)
    assert settle(MODEL, {"the base": stated}, mean=HALF, std=HALF).pictures.mean == (0.5,) * 3


def test_files_that_contradict_each_other_or_are_no_json(tmp_path: Path) -> None:
    clash: dict[str, Any] = {
        "preprocessor_config": PROCESSOR,
        "open_clip_config": {"preprocess_cfg": {"mean": list(MEAN)}},
    }
    with pytest.raises(CheckpointError, match="contradict each other about the mean"):
        opened(tmp_path, **clash)
    (tmp_path / "base" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="is no JSON"):
        stated_of(tmp_path / "base")


def test_names_of_open_clip_say_everything(tmp_path: Path) -> None:
    stated = stated_of(
        folder(
            tmp_path,
            "x",
            vision_state(),
            config={"model_type": "clip", "vision_config": {"hidden_act": "gelu"}},
        )
    )
    for model in ("ViT-B-32-quickgelu", at_size("ViT-B-32-quickgelu", 336)):
        with pytest.raises(PoolError, match="activation: the backbone says quick_gelu"):
            settle(model, {"the base": stated})
    settle("ViT-B-32", {"the base": stated})
    pooled = Stated(
        {"vision_cfg.pool_type": "avg"}, {"vision_cfg.pool_type": "open_clip_config.json: pool_type"}
    )
    with pytest.raises(PoolError, match="vision_cfg.pool_type: the backbone says tok, x .* says avg"):
        settle("ViT-B-32", {"x": pooled})
    foreign = Stated({"vision_cfg.gates": 3}, {"vision_cfg.gates": "open_clip_config.json: gates"})
    with pytest.raises(PoolError, match=r"gates(.|\n)*which no backbone here does"):
        settle(MODEL, {"x": foreign})


# Another image size.

LARGE = at_size(MODEL, 16)


def on_large(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's own loading of a state dict into a model of another image size."""
    from open_clip.model import resize_pos_embed

    result = {**tiny_clip().state_dict(), **state}
    clip: nn.Module = build_clip(LARGE)
    resize_pos_embed(result, clip)
    clip.load_state_dict(result)
    return {key: value for key, value in clip.state_dict().items() if key.startswith("visual.")}


def test_positions_are_resized_as_open_clip_does_when_asked() -> None:
    large = on_large(vision_state(2))
    experts = {"Cars": vision_state(1), "DTD": large}
    heads = {task: torch.ones(3, 8) for task in experts}
    pool = adamerge.open_pool(vision_state(), experts, heads, backbone=LARGE, resize_positions=True)
    base, cars = on_large(vision_state()), on_large(vision_state(1))
    assert base["visual.positional_embedding"].shape == (17, 16)
    for key, value in base.items():
        torch.testing.assert_close(pool.base[key], value, rtol=0, atol=0)
        torch.testing.assert_close(pool.expert("Cars")[key], cars[key], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(pool.expert("DTD")[key], large[key], rtol=1e-5, atol=1e-6)
    images = torch.randn(2, 3, 16, 16)
    clip = build_clip(LARGE)
    clip.load_state_dict(base, strict=False)
    with torch.no_grad():
        torch.testing.assert_close(
            torch.func.functional_call(pool.encoder, pool.base, (images,)), clip.encode_image(images)
        )


@pytest.mark.parametrize(("base", "backbone"), [(vision_state(), LARGE), (on_large(vision_state()), MODEL)])
def test_another_size_says_how_to_ask(base: dict[str, Tensor], backbone: Model) -> None:
    with pytest.raises(
        PoolError,
        match=r"positions are those of \d+ px(.|\n)*backbone.image_size=\d+(.|\n)*resize_positions=true",
    ):
        adamerge.open_pool(base, {"Cars": vision_state(1)}, HEADS, backbone=backbone)


def test_a_whole_pool_of_another_size_needs_no_resizing() -> None:
    pool = adamerge.open_pool(
        on_large(vision_state()), {"Cars": on_large(vision_state(1))}, HEADS, backbone=LARGE
    )
    assert pool.encoder.pictures.size == 16
