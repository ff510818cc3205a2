"""A run folder: its config is written first, then its training goes on from where it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch.utils.data import Dataset

from adamerge.checkpoints.atomic import atomic_write_text, why_not_writable
from adamerge.errors import ConfigError
from adamerge.tracking.mirror import Mirror
from adamerge.tracking.recorded import Weights, write_lineage
from adamerge.training.journaling import Watch
from adamerge.training.loop import run_steps
from adamerge.training.steps import StepModule


def start_folder(cfg: DictConfig, folder: Path, uses: Mapping[str, Weights]) -> None:
    """Make the folder and write into it the resolved config, and which weight files are used.

    Raises:
        ConfigError: the folder cannot be made or written into.
    """
    if why := why_not_writable(folder):
        raise ConfigError(
            f"outputs: the run folder {folder} cannot be written: {why}.\n"
            "  Give outputs=<folder>, or set ADAMERGE_OUTPUTS, to a folder that can be written."
        )
    atomic_write_text(folder / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
    write_lineage(folder, uses)


def train_in(
    folder: Path,
    cfg: DictConfig,
    module: StepModule,
    data: Dataset[Any],
    steps: int,
    mirrors: Sequence[Mirror],
    watch: Watch | None = None,
) -> None:
    """Train with the config's trainer and checkpoints."""
    trainer: Any = OmegaConf.to_container(cfg.trainer, resolve=True)
    run_steps(
        module,
        data,
        steps,
        folder=folder,
        trainer=trainer,
        mirrors=mirrors,
        checkpoint_every=cfg.checkpoint_every,
        workers=cfg.workers,
        watch=watch,
    )
