"""What the backbone leaves open is taken from the files beside the weights; where they contradict, nothing is guessed.

The shapes of a vision transformer tell neither its activation, nor its number of attention heads, nor how pictures are
normalised. A wrong one runs, and gives wrong numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adamerge.checkpoints.stated import SILENT, Stated, stated_beside
from adamerge.checkpoints.weight_files import split_part
from adamerge.errors import PoolError
from adamerge.models.clip import Model, activation, image_size, model_config
from adamerge.models.pictures import MEAN, STD, PictureRules
from adamerge.models.registers import KEY as REGISTERS
from adamerge.models.timm_vit import PREFIX as TIMM
from adamerge.models.timm_vit import timm_pictures
from adamerge.models.trunks import has_trunk
from adamerge.picture_fit import Fit

_CLOSE = 1e-3  # numbers of a mean or deviation that files round differently
_VISION = "vision_cfg."
_FIT = ("resize", "to", "interpolation")


@dataclass(frozen=True)
class Settled:
    """A backbone with nothing left open.

    Attributes:
        model: the backbone, with what the files add to a configuration that leaves it open.
        pictures: the rules for its pictures.
        taken: {fact: where it was taken from}.
    """

    model: Model
    pictures: PictureRules
    taken: Mapping[str, str]


def stated_of(source: Any) -> Stated:
    """What lies beside a checkpoint's weights; nothing for a state dict or a file that is not there."""
    if not isinstance(source, str | Path):
        return SILENT
    path = Path(split_part(str(source))[0]).expanduser()
    return stated_beside(path) if path.exists() else SILENT


def settle(
    model: Model,
    stated: Mapping[str, Stated],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    resize_positions: bool = False,
    **fit: Any,
) -> Settled:
    """The backbone, with what it leaves open taken from the files.

    Args:
        stated: {name of a checkpoint: what its files state}.
        mean, std: what the backbone says about its pictures; None leaves it open.
        fit: what the backbone says of `resize`, `to` and `interpolation`; None leaves one open.
        resize_positions: the positional embedding is brought to the backbone's size, whatever size the files state.

    Raises:
        PoolError: the files contradict the backbone or each other, or ask for what no backbone here does.
    """
    from open_clip import CLIPVisionCfg

    known = {**asdict(CLIPVisionCfg()), REGISTERS: 0}
    given = {**dict(_backbone_facts(model)), **_own_pictures(model)}
    given |= {name: tuple(value) for name, value in (("mean", mean), ("std", std)) if value is not None}
    given |= {name: value for name, value in fit.items() if value is not None}
    found: dict[str, tuple[Any, str]] = {name: (value, "the backbone") for name, value in given.items()}
    lines = [
        f"{name}: {phrase}, which no backbone here does." for name, s in stated.items() for phrase in s.beyond
    ]
    advice: dict[str, None] = {}
    for name, files in stated.items():
        for fact, value in files.facts.items():
            if fact == "image_size" and resize_positions:
                continue
            if fact == "to" and resize_positions and (own := files.facts.get("image_size")):
                # It is stated for the files' own size; at another the same share is cropped.
                value = round(value * image_size(model) / own)
            if fact.startswith(_VISION) and fact.removeprefix(_VISION) not in known:
                lines.append(f"{name}: {fact}={value} ({files.where[fact]}), which no backbone here does.")
                continue
            said, by = found.setdefault(fact, (value, f"{name} ({files.where[fact]})"))
            if not _same(said, value):
                lines.append(f"{fact}: {by} says {said}, {name} ({files.where[fact]}) says {value}.")
                advice[_advice(fact, value, model)] = None
    if lines:
        count = f"{len(lines)} settings" if len(lines) > 1 else "A setting"
        shown = "\n".join(f"  {line}" for line in dict.fromkeys(lines))
        raise PoolError(
            f"{count} of the weights cannot be honoured as the files beside them state it.\n{shown}\n"
            f"  {' '.join([*advice, 'A file that is wrong about its weights is corrected or removed.'])}"
        )
    _refuse_unsaid_pictures(model, found)
    taken = {fact: by for fact, (_, by) in found.items() if fact not in given}
    values = {fact: value for fact, (value, _) in found.items()}
    how = {name: values.get(name) for name in _FIT}
    pictures = picture_rules(model, values.get("mean"), values.get("std"), **how)
    return Settled(_with(model, {fact: values[fact] for fact in taken}), pictures, taken)


def _refuse_unsaid_pictures(model: Model, found: Mapping[str, Any]) -> None:
    """Trunks of timm's differ in the pictures that they take, so that CLIP's rules are not taken for granted."""
    missing = [fact for fact in ("mean", "std", "resize") if fact not in found]
    if missing and has_trunk(model_config(model)):
        name = model_config(model)["vision_cfg"]["timm_model_name"]
        raise PoolError(
            f"Nothing says how pictures are prepared for {name}: {', '.join(missing)}.\n"
            "  Put open_clip_config.json beside the weights, or give them, for SigLIP as backbone.mean=[0.5,0.5,0.5] "
            "backbone.std=[0.5,0.5,0.5] backbone.resize=squash."
        )


def picture_rules(
    model: Model,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **fit: Any,
) -> PictureRules:
    """The rules for a backbone's pictures, CLIP's unless others are given.

    Args:
        fit: `resize`, `to` and `interpolation`, where they are not CLIP's; None leaves one open.
    """
    own = {"mean": MEAN, "std": STD, **_own_pictures(model)}
    own |= {key: value for key, value in {"mean": mean, "std": std, **fit}.items() if value is not None}
    mean, std = own.pop("mean"), own.pop("std")
    return PictureRules(Fit(image_size(model), **own), _colour(mean), _colour(std))


def _own_pictures(model: Model) -> dict[str, Any]:
    """What a model's name says of its pictures: timm's, and open_clip's where the image encoder is one of timm's."""
    if not isinstance(model, str):
        return {}
    if model.startswith(TIMM):
        return {key: value for key, value in timm_pictures(model).items() if value is not None}
    return _published_pictures(model) if has_trunk(model_config(model)) else {}


def _published_pictures(name: str) -> dict[str, Any]:
    """What open_clip's table states of all published weights of a model alike; CLIP's where it says nothing."""
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(name)
    published = [open_clip.get_pretrained_cfg(name, tag) for tag in tags]
    found = {}
    for fact, key in (("mean", "mean"), ("std", "std"), ("resize", "resize_mode"), ("interpolation",) * 2):
        values = {tuple(v) if isinstance(v := one.get(key), list | tuple) else v for one in published}
        if len(values) == 1 and (value := values.pop()) is not None:
            found[fact] = value
    return found


def _colour(given: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in given)
    return red, green, blue


def _backbone_facts(model: Model) -> Iterator[tuple[str, Any]]:
    """What the backbone says. A name of open_clip's says everything; a configuration what stands in it."""
    from open_clip import CLIPVisionCfg

    config, named = model_config(model), isinstance(model, str)
    usual = {**asdict(CLIPVisionCfg()), REGISTERS: 0}
    vision: dict[str, Any] = {**(usual if named else {}), **config["vision_cfg"]}
    if named or "quick_gelu" in config:
        yield "activation", activation(model)
    if "head_width" in vision and not has_trunk(config):  # a trunk's is part of its name
        yield "heads", vision["width"] // vision["head_width"]
    yield "image_size", image_size(model)
    for key in vision.keys() - {"width", "head_width", "image_size", "layers", "patch_size", "mlp_ratio"}:
        yield _VISION + key, vision[key]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(abs(a - b) <= _CLOSE for a, b in zip(one, other, strict=True))
    return bool(one == other)


def _with(model: Model, taken: Mapping[str, Any]) -> Model:
    """A configuration with the facts that it left open."""
    if isinstance(model, str):
        return model
    vision = dict(model["vision_cfg"])
    config: dict[str, Any] = {**model, "vision_cfg": vision}
    for fact, value in taken.items():
        if fact == "activation":
            config["quick_gelu"] = value == "quick_gelu"
        elif fact == "heads":
            vision["head_width"] = vision["width"] // value
        elif fact.startswith(_VISION):
            vision[fact.removeprefix(_VISION)] = value
    return config


def _advice(fact: str, value: Any, model: Model) -> str:
    """How to follow the files."""
    if fact in ("mean", "std"):
        return f"backbone.{fact}=[{','.join(map(str, value))}] follows the file."
    if fact == "image_size":
        return f"backbone.image_size={value} follows the file; backbone.resize_positions=true resizes its positions."
    if fact == "activation" and isinstance(model, str):
        other = model.removesuffix("-quickgelu") + ("-quickgelu" if value == "quick_gelu" else "")
        return f"backbone.model={other} follows the file."
    if fact == "activation":
        return f"backbone.model.quick_gelu={str(value == 'quick_gelu').lower()} follows the file."
    if fact == "heads":
        width = model_config(model)["vision_cfg"]["width"] // value
        return f"backbone.model.vision_cfg.head_width={width} follows the file."
    return f"backbone.model.{fact}={value} follows the file."
