"""Writes tiny checkpoints in the exact public forms: the classes exist only while a file is pickled."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

MODEL: dict[str, Any] = {
    "embed_dim": 8,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 8, "layers": 2, "width": 16, "head_width": 8, "patch_size": 4},
    "text_cfg": {"context_length": 8, "vocab_size": 12, "width": 8, "heads": 1, "layers": 1},
}


def tiny_clip(seed: int = 0) -> nn.Module:
    from adamerge.models.clip import build_clip

    torch.manual_seed(seed)
    clip = build_clip(MODEL)
    # open_clip starts with small weights; larger ones make every tensor matter in the features.
    for parameter in clip.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return clip


def vision_state(seed: int = 0) -> dict[str, Tensor]:
    return {k: v.detach() for k, v in tiny_clip(seed).state_dict().items() if k.startswith("visual.")}


@contextmanager
def published_classes(
    *, vision: str = "VisualTransformer", wrapper: str = "src.modeling"
) -> Iterator[dict[str, Any]]:
    """The module paths of open_clip 2.0.2 (`VisualTransformer`) or later (`VisionTransformer`), and the wrappers."""
    names = {
        "open_clip.model": [
            "CLIP",
            vision,
            "Transformer",
            "ResidualAttentionBlock",
            "LayerNorm",
            "QuickGELU",
        ],
        wrapper: ["ImageEncoder", "ClassificationHead"],
    }
    made: dict[str, Any] = {}
    before = {name: sys.modules.get(name) for name in (*names, "src", "open_clip")}
    for module, classes in names.items():
        fake = ModuleType(module)
        for name in classes:
            made[name] = type(name, (nn.Module,), {"__module__": module, "__qualname__": name})
            setattr(fake, name, made[name])
        sys.modules[module] = fake
        parent, _, child = module.rpartition(".")
        if parent:
            package = ModuleType(parent)
            setattr(package, child, fake)
            sys.modules[parent] = package
    try:
        yield made
    finally:
        for name in (*names, "src", "open_clip"):
            if before.get(name) is not None:
                sys.modules[name] = before[name]  # type: ignore[assignment]
            else:
                sys.modules.pop(name, None)


def image_encoder_module(made: dict[str, Any], state: dict[str, Tensor], vision: str) -> nn.Module:
    """ImageEncoder.model.visual... with the given tensors as parameters, text leftovers and attributes beside them."""
    encoder, clip, visual = made["ImageEncoder"](), made["CLIP"](), made[vision]()
    encoder.model = clip
    clip.visual = visual
    clip.positional_embedding = nn.Parameter(torch.zeros(8, 8))
    clip.logit_scale = nn.Parameter(torch.tensor(4.6))
    clip.register_buffer("attn_mask", torch.zeros(2, 2), persistent=False)
    encoder.train_preprocess = encoder.val_preprocess = _transform()
    encoder.cache_dir = "/somewhere"
    kinds = {"ln": made["LayerNorm"], "transformer": made["Transformer"], "conv1": nn.Conv2d}
    for key, value in state.items():
        *path, name = key.removeprefix("visual.").split(".")
        module: nn.Module = visual
        for part in path:
            if part not in module._modules:
                module.add_module(part, _module_for(part, kinds, made))
            module = module._modules[part]  # type: ignore[assignment]
        module.register_parameter(name, nn.Parameter(value.clone()))
    return encoder


def _module_for(part: str, kinds: dict[str, Any], made: dict[str, Any]) -> nn.Module:
    if part == "conv1":
        return nn.Conv2d(1, 1, 1, bias=False)
    if part == "resblocks":
        return nn.Sequential()
    if part.isdigit():
        return made["ResidualAttentionBlock"]()
    if part == "attn":
        return nn.MultiheadAttention(4, 1)
    if part == "mlp":
        return nn.Sequential()
    if part in ("c_fc", "c_proj"):
        return nn.Linear(1, 1)
    return kinds.get(part[:2], kinds.get(part, made["LayerNorm"]))()


def _transform() -> Any:
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

    steps = [
        Resize(8, InterpolationMode.BICUBIC),
        CenterCrop(8),
        ToTensor(),
        Normalize((0.5,) * 3, (0.5,) * 3),
    ]
    return Compose(steps)


def save_task_vectors_pickle(
    path: Path, state: dict[str, Tensor], *, vision: str, wrapper: str = "src.modeling", form: str = "zip"
) -> None:
    """The whole module as torch.save writes it (zip or legacy), or as a plain pickle (ViT-B-16/Cars)."""
    with published_classes(vision=vision, wrapper=wrapper) as made:
        module = image_encoder_module(made, state, vision)
        _dump(path, module, form)


def save_head_pickle(path: Path, weight: Tensor, form: str = "zip") -> None:
    with published_classes() as made:
        head = made["ClassificationHead"]()
        head.normalize = True
        head.weight = nn.Parameter(weight)
        head.bias = nn.Parameter(torch.zeros(len(weight)))
        _dump(path, head, form)


def _dump(path: Path, module: nn.Module, form: str) -> None:
    if form == "plain":
        path.write_bytes(pickle.dumps(module, protocol=4))
    else:
        torch.save(module, path, _use_new_zipfile_serialization=form == "zip")
