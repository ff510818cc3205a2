"""Trainer options and loggers from the config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from adamerge.settings import instantiate


def trainer_of(cfg: DictConfig) -> dict[str, Any]:
    return dict(OmegaConf.to_container(cfg.trainer, resolve=True))  # type: ignore[arg-type]


def loggers_of(cfg: DictConfig, folder: Path, **names: str) -> list[Any]:
    """The mirrors of the journal; they write below the run folder."""
    return [instantiate(node, save_dir=str(folder), **names) for node in (cfg.get("logger") or {}).values()]
