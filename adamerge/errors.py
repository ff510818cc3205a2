"""The errors a user can mend. Each says what happened, where, what was expected and what to do.

The command line prints them on stderr without a traceback and exits with code 2.
"""

from __future__ import annotations

import errno
import os

# No permission, a read-only disk, a file where a folder is needed or the other way round, a name that is too long.
_REFUSALS = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
)


class AdamergeError(Exception):
    """A mistake in the input (config, checkpoint, data, run folder), not in the program."""


def from_system(error: OSError) -> AdamergeError | None:
    """A refusal of the operating system that the user can mend, as an error of ours; None for any other.

    A file that is not there is none of them: every place that opens a user's file says so itself.
    """
    if error.filename is None or error.errno not in _REFUSALS:
        return None
    return RunError(
        f"{os.fsdecode(error.filename)}: {error.strerror}.\n  Nothing can be read or written there; name another place."
    )


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
