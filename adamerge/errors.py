"""The errors a user can mend. Each says what happened, where, what was expected and what to do.

The command line prints them on stderr without a traceback and exits with code 2.
"""

from __future__ import annotations


class AdamergeError(Exception):
    """A mistake in the input (config, checkpoint, data, run folder), not in the program."""


class ConfigError(AdamergeError):
    """One or more mistakes in the settings; nothing was started."""


class CheckpointError(AdamergeError):
    """A checkpoint file that is missing, damaged, foreign or unsafe to open."""


class PoolError(AdamergeError):
    """Base model, experts and heads that do not fit together."""


class DataError(AdamergeError):
    """Images, labels or class names that are missing or do not fit the task."""


class RunError(AdamergeError):
    """A run that cannot go on: a non-finite loss, a full disk, a run folder that is not one."""
