"""Reports about heads: a bias that has to count, numbers that are none, rows that fit no class."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from reports.inputs import digit_folders, on_folders
from reports.report import EXPERTS, Report
from torch import Tensor
from torch.nn.functional import normalize

WIDTH = 64


def _head(home: Path, tensors: dict[str, Tensor]) -> str:
    torch.save(tensors, home / "probe_digits.pt")
    return f"checkpoints.heads={home}/probe_{{task}}.pt"


def _with_head(command: str, tensors: dict[str, Tensor], *more: str) -> Callable[[Path], list[str]]:
    return lambda home: [command, *on_folders(digit_folders(home / "data", 5)), _head(home, tensors), *more]


def _two_class_probe(home: Path) -> list[str]:
    """Zero or another digit: a linear probe on the expert's features, most of which its bias decides."""
    from omegaconf import OmegaConf

    from adamerge.checkpoints import open_checkpoint
    from adamerge.models.clip import ImageEncoder, build_clip
    from adamerge.settings.paths import conf_dir
    from adamerge.tasks.images import ImageSet
    from adamerge.tasks.sources import Folder

    numbers = count()
    data = digit_folders(
        home / "data", 20,
        name=lambda label: "a_zero" if label == 0 else "rest",
        save=lambda picture, path: Image.fromarray(picture).save(path.with_name(f"{next(numbers):04d}.png")),
    )  # fmt: skip
    source = Folder("digits", str(data))
    pixels, labels = ImageSet(source.images("test"), 32)[slice(None)], torch.as_tensor(source.labels("test"))
    model: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / "backbone/mini.yaml").model)
    encoder = ImageEncoder(build_clip(model).visual)
    encoder.load_state_dict(open_checkpoint(EXPERTS / "digits.safetensors").image_encoder())
    with torch.no_grad():
        features = normalize(encoder(pixels), dim=-1)
    ones = torch.ones(len(features), 1)
    solution = torch.linalg.lstsq(torch.cat([features, ones], dim=1), labels.float()[:, None] - 0.5).solution
    row, bias = solution[:-1, 0], solution[-1, 0]
    probe = {"weight": torch.stack([0 * row, row]), "bias": torch.stack([0 * bias, bias])}
    return ["merge", *on_folders(data, "rule=individual"), _head(home, probe)]


def _zero_shot() -> Tensor:
    return torch.randn(10, WIDTH, generator=torch.Generator().manual_seed(0))


NAN = {"weight": _zero_shot().index_put((torch.tensor(3),), torch.tensor(torch.nan))}
ALWAYS_THREE = {"weight": _zero_shot(), "bias": 1e4 * torch.eye(10)[3]}
TEN_OF_TWELVE = {"weight": torch.cat([_zero_shot(), _zero_shot()[:2]])}


def _unrelated_base(command: str) -> Callable[[Path], list[str]]:
    """A base of the same architecture that the expert does not come from."""

    def words(home: Path) -> list[str]:
        from omegaconf import OmegaConf

        from adamerge.checkpoints import save_tensors
        from adamerge.models.pretrained import pretrained_state
        from adamerge.settings.paths import conf_dir

        model: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / "backbone/mini.yaml").model)
        save_tensors(home / "base.safetensors", pretrained_state("random:1", model))
        return [
            command,
            *on_folders(digit_folders(home / "data")),
            f"checkpoints.base={home}/base.safetensors",
        ]

    return words


_NOT_RELATED = ("distance of 1.51 of the base's norm, with a cosine of 0.00 to it", "another base")

REPORTS = [
    Report("doctor: a base unrelated to the expert", _unrelated_base("doctor"), exit=0, says=_NOT_RELATED),
    Report(
        "merge: a base unrelated to the expert",
        _unrelated_base("merge"),
        exit=0,
        says=(*_NOT_RELATED, "digits: the predictions agree with the expert's no more often than by chance"),
    ),
    Report(
        "doctor: an expert of this base",
        lambda home: ["doctor", *on_folders(digit_folders(home / "data", 5))],
        exit=0,
        says=("moved by 0.10 of the base's norm", "GELU (as stated beside the weights)", "0 warnings"),
    ),
    Report(
        "a good merge agrees with its experts",
        lambda home: ["merge", *on_folders(digit_folders(home / "data", 5))],
        exit=0,
        says_not=("by chance", "another base"),
    ),
    Report("a two-class probe with its bias", _two_class_probe, exit=0, average=1.0),
    Report("a bias that decides alone", _with_head("merge", ALWAYS_THREE), exit=0, average=0.1),
    Report(
        "doctor says that a head has a bias",
        _with_head("doctor", ALWAYS_THREE),
        exit=0,
        says=("10 classes, with bias",),
    ),
    *(
        Report(
            f"{command}: not a number in a head",
            _with_head(command, NAN),
            says=("digits", "probe_digits.pt", "64 of 640 numbers of the head are not finite"),
        )
        for command in ("merge", "doctor")
    ),
    *(
        Report(
            f"{command}: a head of other classes",
            _with_head(command, TEN_OF_TWELVE),
            says=("digits", "12 rows", "10 classes"),
        )
        for command in ("merge", "doctor")
    ),
    Report(
        "a probe of two layers",
        _with_head("merge", {**NAN, "running_mean": torch.zeros(WIDTH)}),
        says=("probe_digits.pt", "more than a linear head", "running_mean"),
    ),
]
