"""What the configuration files beside the weights state: open_clip_config.json, config.json, preprocessor_config.json.

Shapes cannot tell the activation, the number of attention heads or how pictures are normalised; these files can.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adamerge.errors import CheckpointError

OPEN_CLIP, HF, PROCESSOR, PROCESSORS = (
    "open_clip_config.json",
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
)
CONFIG_FILES = (OPEN_CLIP, HF, PROCESSOR, PROCESSORS)
_FILTERS = {2: "bilinear", 3: "bicubic"}  # PIL's numbers


@dataclass(frozen=True)
class Stated:
    """What one model's files say.

    Attributes:
        facts: "activation" ("quick_gelu" or "gelu"), "heads" (of attention), "image_size" (pixels), "mean" and "std"
            (three numbers each), "vision_cfg.<key>" (open_clip's further settings); only what is stated.
        where: {fact: "<file>: <key>"}.
        beyond: what is asked for and no backbone here does, each as a phrase.
        quantisation: the name of a quantisation that the weights are said to have.
        classes: the names of a classifier's rows; empty where none are stated. Their place is `where["classes"]`.
    """

    facts: Mapping[str, Any]
    where: Mapping[str, str]
    beyond: tuple[str, ...] = ()
    quantisation: str = ""
    classes: tuple[str, ...] = ()


SILENT = Stated({}, {})


def stated_beside(path: Path) -> Stated:
    """What the files in a folder, or beside a file, state about the weights there.

    Raises:
        CheckpointError: a file that is no JSON, or one that contradicts another.
    """
    folder = path if path.is_dir() else path.parent
    facts: dict[str, Any] = {}
    where: dict[str, str] = {}
    beyond: list[str] = []
    quantisation = ""
    classes: tuple[str, ...] = ()
    for name in CONFIG_FILES:
        content = _read(folder / name)
        if name == HF:
            quantisation = _quantisation(content)
            if classes := _classes(content.get("id2label")):
                where["classes"] = f"{folder / name}: id2label"
        for fact, key, value in _READERS[name](content):
            place = f"{folder / name}: {key}"
            if fact == "beyond":
                beyond.append(f"{value} ({place})")
            elif facts.setdefault(fact, value) == value:
                where.setdefault(fact, place)
            else:
                raise CheckpointError(
                    f"Two files beside the same weights contradict each other about the {fact.replace('_', ' ')}.\n"
                    f"  {where[fact]} says {facts[fact]}, {place} says {value}. Correct the wrong one."
                )
    return Stated(facts, where, tuple(beyond), quantisation, classes)


def _read(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file} is no JSON: {error}.") from error
    return content if isinstance(content, dict) else {}


Facts = Iterator[tuple[str, str, Any]]


def _open_clip(content: dict[str, Any]) -> Facts:
    model, pictures = content.get("model_cfg") or {}, content.get("preprocess_cfg") or {}
    if vision := model.get("vision_cfg"):
        yield "activation", "quick_gelu", "quick_gelu" if model.get("quick_gelu") else "gelu"
        if "width" in vision:
            yield "heads", "head_width", vision["width"] // vision.get("head_width", 64)
        if "image_size" in vision:
            yield "image_size", "image_size", _side(vision["image_size"])
        sizes = ("width", "head_width", "image_size", "layers", "patch_size", "mlp_ratio", "patch_dropout")
        for key in vision.keys() - set(sizes):
            yield f"vision_cfg.{key}", key, vision[key]
    yield from _normalisation(pictures, "mean", "std")
    if (interpolation := pictures.get("interpolation", "random")) in ("bicubic", "bilinear"):
        yield "interpolation", "interpolation", interpolation
    elif interpolation != "random":  # of the training's pictures; open_clip evaluates with bicubic then
        yield "beyond", "interpolation", f"{interpolation} resizing"
    if (mode := pictures.get("resize_mode")) in ("shortest", "squash"):
        yield "resize", "resize_mode", mode
    elif mode is not None:
        yield "beyond", "resize_mode", f"resizing by '{mode}'"
    if "size" in pictures:
        yield "image_size", "size", _side(pictures["size"])


def _hf(content: dict[str, Any]) -> Facts:
    if content.get("model_type") in VITS:
        yield from _vit(content)
    if not _is_clip(content):
        return
    vision = content.get("vision_config") or content
    yield from _blocks(vision)
    if "image_size" in vision:
        yield "image_size", "image_size", _side(vision["image_size"])
    if abs(vision.get("layer_norm_eps", 1e-5) - 1e-5) > 1e-9:
        yield "beyond", "layer_norm_eps", f"layer normalisation with eps {vision['layer_norm_eps']}"
    for architecture in content.get("architectures") or ():
        if "Classification" in architecture:
            yield "beyond", "architectures", f"a classifier of its own, {architecture}"


def _blocks(content: Mapping[str, Any]) -> Facts:
    """What all of Hugging Face's vision transformers say alike of their blocks."""
    if (activation := content.get("hidden_act")) in ("gelu", "quick_gelu"):
        yield "activation", "hidden_act", activation
    elif activation is not None:
        yield "beyond", "hidden_act", f"the activation {activation}"
    if "num_attention_heads" in content:
        yield "heads", "num_attention_heads", content["num_attention_heads"]


# Hugging Face's vision transformers that are read as open_clip's.
VITS = ("vit", "deit", "dinov2", "dinov2_with_registers")


def _vit(content: dict[str, Any]) -> Facts:
    """A ViTModel's, DeiTModel's or Dinov2Model's configuration."""
    yield from _blocks({"hidden_act": "gelu", **content})
    if "layer_norm_eps" in content:
        yield "vision_cfg.norm_kwargs", "layer_norm_eps", {"eps": float(content["layer_norm_eps"])}
    # DINOv2 states the size that its positions are for, and is used at others.
    if "image_size" in content and not content["model_type"].startswith("dinov2"):
        yield "image_size", "image_size", _side(content["image_size"])
    if content["model_type"] == "dinov2_with_registers":
        yield "vision_cfg.register_tokens", "num_register_tokens", int(content.get("num_register_tokens", 4))
    if content.get("use_swiglu_ffn"):
        yield "beyond", "use_swiglu_ffn", "an MLP with SwiGLU"
    if content.get("qkv_bias") is False:
        yield "beyond", "qkv_bias", "an attention without biases"


def _is_clip(content: dict[str, Any]) -> bool:
    return "vision_config" in content or str(content.get("model_type", "")).startswith("clip")


def _processors(content: dict[str, Any]) -> Facts:
    yield from _processor(content.get("image_processor") or {})


def _processor(content: dict[str, Any]) -> Facts:
    """A CLIPImageProcessor or its like: resized to `size`, cropped at the centre, to [0, 1], normalised."""
    if not content:
        return
    size, crop = content.get("size"), content.get("crop_size")
    stretched = isinstance(size, dict) and "height" in size
    for key in ("do_resize", *(() if stretched else ("do_center_crop",)), "do_rescale", "do_normalize"):
        if content.get(key) is False:
            yield "beyond", key, f"pictures without {key.removeprefix('do_').replace('_', ' ')}"
    if abs(content.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-8:
        yield "beyond", "rescale_factor", f"pixels scaled by {content['rescale_factor']}"
    if (resample := content.get("resample")) in _FILTERS:
        yield "interpolation", "resample", _FILTERS[resample]
    elif resample is not None:
        yield "beyond", "resample", f"resizing by PIL's filter {resample}, neither bicubic nor bilinear"
    if stretched and isinstance(size, dict):
        yield from _stretched(size, crop if content.get("do_center_crop") else None)
    elif (shortest := _side(size)) is not None:
        side = _side(crop) or shortest
        yield "resize", "size", "shortest"
        if side > shortest:
            yield "beyond", "crop_size", f"pictures of {shortest} pixels with borders up to {side}"
        elif side != shortest:
            yield "to", "size", shortest
        yield "image_size", "size" if crop is None else "crop_size", side
    yield from _normalisation(content, "image_mean", "image_std")


def _stretched(size: Mapping[str, Any], crop: Any) -> Facts:
    """Both sides to one length, whatever the picture's shape."""
    height, width = int(size["height"]), int(size["width"])
    if height != width or crop is not None:
        yield (
            "beyond",
            "size",
            f"pictures stretched to {height} x {width}" + ("" if crop is None else " and cropped"),
        )
        return
    yield "resize", "size", "squash"
    yield "image_size", "size", height


def _normalisation(content: Mapping[str, Any], mean: str, std: str) -> Facts:
    for fact, key in (("mean", mean), ("std", std)):
        if (value := content.get(key)) is not None:
            numbers = value if isinstance(value, list) else [value] * 3
            yield fact, key, tuple(round(float(number), 8) for number in numbers)


def _side(size: Any) -> int | None:
    if isinstance(size, dict):
        size = size.get("shortest_edge", size.get("height"))
    if isinstance(size, list):
        size = size[0]
    return None if size is None else int(size)


def _quantisation(content: dict[str, Any]) -> str:
    given = content.get("quantization_config")
    if not given:
        return ""
    bits = {"load_in_8bit": "bitsandbytes (8 bit)", "load_in_4bit": "bitsandbytes (4 bit)"}
    named = next((name for key, name in bits.items() if given.get(key)), "")
    return named or str(given.get("quant_method", "an unnamed quantisation"))


def _classes(id2label: Any) -> tuple[str, ...]:
    """The names of labels 0, 1, ...; nothing where some are missing, or are those that transformers fills in."""
    if not isinstance(id2label, dict):
        return ()
    given = [id2label.get(str(index)) for index in range(len(id2label))]
    names = tuple(name for name in given if isinstance(name, str))
    filled = tuple(f"LABEL_{index}" for index in range(len(given)))
    return names if len(names) == len(given) and names != filled else ()


_READERS = {OPEN_CLIP: _open_clip, HF: _hf, PROCESSOR: _processor, PROCESSORS: _processors}
