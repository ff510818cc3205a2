"""`train`: adapt, then evaluate."""

from __future__ import annotations

from omegaconf import DictConfig

from adamerge.commands.pipeline import execute


def run(cfg: DictConfig) -> None:
    execute(cfg)
