"""`train`: adapt, then evaluate."""

from __future__ import annotations

import math
from collections.abc import Sequence

from adamerge.commands.hydra_entry import WORST
from adamerge.commands.overrides import Typed
from adamerge.commands.presets import deviations
from adamerge.commands.rerunning import deviations_again, settings_again
from adamerge.runs.recipe import execute
from adamerge.settings.commands import TrainSettings
from adamerge.tracking.results import Results


def run(settings: TrainSettings) -> float:
    """Run, and return what a search over options maximises."""
    return searched(execute(settings, deviations), settings.maximise)


def run_over(typed: Sequence[Typed]) -> None:
    """Make a run again from its folder's own config, with what was typed over it."""
    settings, folder = settings_again("train", typed, TrainSettings)
    execute(settings, deviations_again(folder))


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
