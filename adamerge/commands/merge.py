"""`merge`: a static rule, then evaluate: the same road as `train`, with nothing to adapt. Or the merge alone."""

from __future__ import annotations

from adamerge.commands.presets import deviations
from adamerge.runs.recipe import execute
from adamerge.runs.streaming import merge_files
from adamerge.settings.commands import MergeSettings


def run(settings: MergeSettings) -> None:
    if settings.evaluate:
        execute(settings.of_run(), deviations)
    else:
        merge_files(settings.of_run())
