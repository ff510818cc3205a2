"""`merge`: a static rule, then evaluate: the same road as `train`, with nothing to adapt. Or the merge alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from adamerge.commands.overrides import Typed
from adamerge.commands.presets import deviations
from adamerge.commands.rerunning import deviations_again, settings_again
from adamerge.runs.recipe import execute
from adamerge.runs.streaming import merge_files
from adamerge.settings.commands import MergeSettings, RunSettings
from adamerge.tracking.preset import Deviations


def run(settings: MergeSettings) -> None:
    _merge(settings, deviations)


def run_over(typed: Sequence[Typed]) -> None:
    """Make a merge again from its folder's own config, with what was typed over it."""
    settings, folder = settings_again("merge", typed, MergeSettings)
    _merge(settings, deviations_again(folder))


def _merge(settings: MergeSettings, against: Callable[[RunSettings], Deviations]) -> None:
    if settings.evaluate:
        execute(settings.of_run(), against)
    else:
        merge_files(settings.of_run())
