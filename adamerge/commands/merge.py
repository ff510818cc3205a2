"""`merge`: a static rule, then evaluate. The same road as `train`, with nothing to adapt."""

from __future__ import annotations

from adamerge.commands.presets import deviations
from adamerge.runs.recipe import execute
from adamerge.settings.commands import RunSettings


def run(settings: RunSettings) -> None:
    execute(settings, deviations)
