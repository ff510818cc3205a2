"""Runs through the real command line, on the embedded suite. The cache is shared: references are made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adamerge.__main__ import main
from adamerge.tracking.results import Results, read_results

QUICK = (
    "suite.tasks=[digits,signs]",
    "trainer.enable_progress_bar=false",
    "trainer.accelerator=cpu",
    "method.schedule.forward_images=256",
)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def home(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder with its own outputs."""
    monkeypatch.setenv("ADAMERGE_CACHE", str(cache))
    monkeypatch.delenv("ADAMERGE_OUTPUTS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def finished(folder: Path) -> dict[str, Path]:
    """The finished run folders below `folder`, by method."""
    return {path.parent.parent.name: path.parent for path in folder.glob("outputs/*/*/*/results.json")}


@pytest.fixture
def train(home: Path) -> Callable[..., tuple[Path, Results]]:
    """Run `train` with a few steps on two tasks; gives the run folder and its results."""

    def run(method: str, *words: str, steps: int = 3) -> tuple[Path, Results]:
        main(["train", f"method={method}", f"method.schedule.steps={steps}", *QUICK, *words])
        folder = finished(home)[method]
        return folder, read_results(folder)

    return run
