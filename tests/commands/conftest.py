"""Runs through the real command line, on the embedded suite. The cache is shared: references are made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from adamerge.__main__ import main
from adamerge.tracking.results import Results, read_results

QUICK = (
    "suite.tasks=[digits,signs]",
    "trainer.enable_progress_bar=false",
    "trainer.accelerator=cpu",
    "method.schedule.forward_images=256",
)


def finished(folder: Path) -> dict[str, Path]:
    """The finished run folders below `folder`, by method."""
    return {path.parent.parent.name: path.parent for path in folder.glob("outputs/*/*/*/results.json")}


def stored(path: Path) -> tuple[dict[str, str], dict[str, bytes]]:
    """The metadata of a safetensors file, whose order is any, and the bytes of each tensor."""
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata() or {})
    tensors = load_file(path)
    return metadata, {
        key: value.reshape(-1).view(torch.uint8).numpy().tobytes() for key, value in tensors.items()
    }


@pytest.fixture
def train(home: Path) -> Callable[..., tuple[Path, Results]]:
    """Run `train` with a few steps on two tasks; gives the run folder and its results."""

    def run(method: str, *words: str, steps: int = 3) -> tuple[Path, Results]:
        main(["train", f"method={method}", f"method.schedule.steps={steps}", *QUICK, *words])
        folder = finished(home)[method]
        return folder, read_results(folder)

    return run
