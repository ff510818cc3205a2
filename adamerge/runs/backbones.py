"""The model that a config names, how it sees its pictures, and the device it runs on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from adamerge.errors import ConfigError
from adamerge.models.backbone import Backbone
from adamerge.models.clip import ImageEncoder, Model, at_size, build_visual
from adamerge.models.open_pool import check_encoder
from adamerge.models.pictures import PictureRules
from adamerge.models.positions import resized
from adamerge.models.settling import picture_rules, settle, stated_of
from adamerge.picture_fit import Fit
from adamerge.settings.commands import PoolSettings
from adamerge.settings.sections import BackboneSection, TrainerSection

_S = TypeVar("_S", bound=PoolSettings)


def model_of(backbone: BackboneSection) -> Model:
    """The backbone's open_clip model name or configuration."""
    return backbone.model if backbone.image_size is None else at_size(backbone.model, backbone.image_size)


def pictures_for(backbone: BackboneSection) -> PictureRules:
    """How the backbone wants its pictures."""
    return picture_rules(model_of(backbone), backbone.mean, backbone.std, **_fit(backbone))


def fit_for(backbone: BackboneSection) -> Fit:
    """How a picture is brought to its size."""
    return pictures_for(backbone).fit


def backbone_of(backbone: BackboneSection) -> Backbone:
    """The backbone with its rules for pictures."""
    return Backbone.of(model_of(backbone), pictures_for(backbone))


def base_encoder(backbone: BackboneSection, origin: Mapping[str, Tensor]) -> ImageEncoder:
    """The base's image encoder, to train or to look through.

    Args:
        origin: its tensors, open_clip keys.

    Raises:
        PoolError: they are not the backbone's.
    """
    encoder = ImageEncoder(build_visual(model_of(backbone)), backbone_of(backbone))
    if backbone.resize_positions:
        origin = resized(origin, encoder)
    check_encoder("the base model", origin, encoder.state_dict(), "the backbone")
    encoder.load_state_dict(origin)
    return encoder


def _fit(backbone: BackboneSection) -> dict[str, Any]:
    return {
        "resize": backbone.resize,
        "to": backbone.resize_to,
        "interpolation": backbone.interpolation,
    }


def settled(settings: _S, paths: Mapping[str, str]) -> _S:
    """The settings with what their backbone leaves open taken from the files beside the weights.

    Raises:
        PoolError: files that contradict the backbone or each other.
    """
    backbone = settings.backbone
    stated = {
        {"base": "the base"}.get(name, name.removeprefix("experts/")): stated_of(path)
        for name, path in paths.items()
        if name == "base" or name.startswith("experts/")
    }
    found = settle(
        model_of(backbone),
        stated,
        backbone.mean,
        backbone.std,
        resize_positions=backbone.resize_positions,
        **_fit(backbone),
    )
    values: dict[str, Any] = {"mean": list(found.pictures.mean), "std": list(found.pictures.std)}
    if (fit := found.pictures.fit) != Fit(fit.size):
        values |= {"resize_to" if name == "to" else name: value for name, value in fit.rules().items()}
    if not isinstance(backbone.model, str):
        values["model"] = found.model
    return settings.model_copy(update={"backbone": backbone.model_copy(update=values)})


def device_of(trainer: TrainerSection) -> torch.device:
    """Where Lightning will train with these trainer options."""
    accelerator = trainer.accelerator
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise ConfigError(
            f"trainer.accelerator={accelerator}: there is no CUDA device here.\n  Give trainer.accelerator=cpu."
        )
    if accelerator != "mps" and accelerator != "cpu" and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if accelerator == "mps":
        return torch.device("mps")
    return torch.device("cpu")
