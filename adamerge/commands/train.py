"""`train`: adapt, then evaluate."""

from __future__ import annotations

import math

from omegaconf import DictConfig

from adamerge.commands.hydra_entry import WORST
from adamerge.commands.presets import deviations
from adamerge.runs.recipe import execute
from adamerge.tracking.results import Results


def run(cfg: DictConfig) -> float:
    """Run, and return what a search over options maximises."""
    return searched(execute(cfg, deviations), cfg.maximise)


def searched(results: Results, what: str) -> float:
    """The number that a sweeper such as optuna maximises; the worst there is where it is not known or not finite."""
    values = {
        "agreement": results.agreement,
        "estimate": results.estimate,
        "accuracy": results.average,
        "entropy": None if results.entropy is None else -results.entropy,
    }
    value = values[what]
    if value is None or not math.isfinite(value):
        return WORST
    return value
