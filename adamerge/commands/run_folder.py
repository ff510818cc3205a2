"""A run folder: its config is written first, then its training goes on from where it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch.utils.data import Dataset

from adamerge.checkpoints.atomic import atomic_write_text
from adamerge.settings import instantiate
from adamerge.training.loop import run_steps
from adamerge.training.steps import StepModule


def start_folder(cfg: DictConfig, folder: Path) -> None:
    """Make the folder and write the resolved config into it."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write_text(folder / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))


def train_in(folder: Path, cfg: DictConfig, module: StepModule, data: Dataset[Any], steps: int) -> None:
    """Train with the config's trainer, loggers (which write below the folder) and checkpoints."""
    trainer: Any = OmegaConf.to_container(cfg.trainer, resolve=True)
    run_steps(
        module,
        data,
        steps,
        folder=folder,
        trainer=trainer,
        loggers=[instantiate(node, save_dir=str(folder)) for node in (cfg.get("logger") or {}).values()],
        checkpoint_every=cfg.checkpoint_every,
        workers=cfg.workers,
    )
