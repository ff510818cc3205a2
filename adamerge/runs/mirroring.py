"""The mirrors that a config asks for, open while the run goes on; a failure is noted in the folder and shown."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from adamerge.errors import ConfigError, RunError
from adamerge.files import atomic_write_text
from adamerge.settings import instantiate
from adamerge.settings.commands import PoolSettings
from adamerge.stopping import terminated
from adamerge.tracking.mirror import Mirror
from adamerge.tracking.run_record import ERROR
from adamerge.training.checkpointing import steps_done


@contextmanager
def mirrored(settings: PoolSettings, folder: Path) -> Iterator[list[Mirror]]:
    """Around the work on a run folder that has its config. Whatever ends the work, the mirrors are closed; an
    interruption by hand is no failure, SIGTERM is one.

    Raises:
        ConfigError: a logger whose package is not installed.
    """
    mirrors = _open(settings, folder)
    (folder / ERROR).unlink(missing_ok=True)
    started: list[Mirror] = []
    try:
        for mirror in mirrors:
            mirror.start()
            started.append(mirror)
        yield mirrors
    except BaseException as error:
        if why := _why(error, folder):
            with suppress(OSError, RunError):
                atomic_write_text(folder / ERROR, f"{why}\n")
        for mirror in started:
            with suppress(Exception):  # the first error is what the user must see
                mirror.finish()
        raise
    for mirror in mirrors:
        mirror.finish()


def _why(error: BaseException, folder: Path) -> str | None:
    """What is noted as the reason of a failure; None of an interruption by hand. Of either, and of a termination,
    stderr gets what is kept."""
    if isinstance(error, Exception) and not terminated():
        return f"{type(error).__name__}: {error}"
    kept = _say_what_is_kept(folder)
    return f"Terminated by SIGTERM: {kept}." if terminated() else None


def _open(settings: PoolSettings, folder: Path) -> list[Mirror]:
    from adamerge.training.lightning_mirror import as_mirror

    mirrors: list[Mirror] = []
    for name, node in (settings.logger or {}).items():
        try:
            mirrors.append(as_mirror(folder, instantiate(node, save_dir=folder)))
        except ModuleNotFoundError as error:
            raise ConfigError(f"logger.{name}: {error}\n  Install it, or set logger=none.") from error
    return mirrors


def _say_what_is_kept(folder: Path) -> str:
    """Tell on stderr how far an unfinished run came; returns that."""
    done = steps_done(folder / "checkpoints" / "last.ckpt")
    if done is None:
        kept = "no step is kept; the same command starts again"
    else:
        kept = f"{done} step{'' if done == 1 else 's'} are kept; the same command goes on from there"
    sys.stderr.write(f"{folder}: {kept}.\n")
    return kept
