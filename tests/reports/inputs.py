"""Small inputs that the reports are made of: pictures of mini in class folders, and the options that use them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from reports.report import BASE, EXPERTS

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
Picture = np.ndarray
Save = Callable[[Picture, Path], None]


def pictures(task: str = "digits", n: int = 10) -> dict[int, list[Picture]]:
    """{class: n test pictures of mini (32, 32, 3), uint8}."""
    from adamerge.tasks.mini import Mini

    source = Mini(task=task)
    images, labels = source.images("test"), source.labels("test")
    found: dict[int, list[Picture]] = {}
    for index, label in enumerate(labels):
        if len(found.setdefault(int(label), [])) < n:
            found[int(label)].append(np.asarray(images[index]))
    return found


def _png(picture: Picture, path: Path) -> None:
    Image.fromarray(picture).save(path)


def digit_folders(
    root: Path, n: int = 10, name: Callable[[int], str] = DIGITS.__getitem__, save: Save = _png
) -> Path:
    """<root>/digits/<class>/<number>.png; gives the root, for suite.data."""
    for label, found in pictures("digits", n).items():
        folder = root / "digits" / name(label)
        folder.mkdir(parents=True, exist_ok=True)
        for index, picture in enumerate(found):
            save(picture, folder / f"{index:03d}.png")
    return root


def on_folders(data: Path, *more: str) -> list[str]:
    """Options of a suite with the one task `digits` in class folders, and mini's base and expert."""
    return [
        "suite=folders",
        f"suite.data={data}",
        "suite.tasks=[digits]",
        "suite.prior=0.1",
        "backbone=mini",
        *with_experts(digits=EXPERTS / "digits.safetensors"),
        *more,
    ]


def with_experts(**files: Path) -> list[str]:
    """Options of mini's base and these experts."""
    entries = ", ".join(f"{task}: '{path}'" for task, path in files.items())
    return [
        "checkpoints=files",
        f"checkpoints.base={BASE}",
        f"checkpoints.experts={{{entries}}}",
        "trainer=cpu",
    ]
