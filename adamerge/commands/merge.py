"""`merge`: a static rule, then evaluate. The same road as `train`, with nothing to adapt."""

from __future__ import annotations

from omegaconf import DictConfig

from adamerge.commands.pipeline import execute


def run(cfg: DictConfig) -> None:
    execute(cfg)
