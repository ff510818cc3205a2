"""`merge`: a static rule, then evaluate. The same road as `train`, with nothing to adapt."""

from __future__ import annotations

from omegaconf import DictConfig

from adamerge.commands.presets import deviations
from adamerge.runs.recipe import execute


def run(cfg: DictConfig) -> None:
    execute(cfg, deviations)
