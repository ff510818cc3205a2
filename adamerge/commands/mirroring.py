"""The mirrors that a config asks for, open while the run goes on; a failure is noted in the folder and shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from omegaconf import DictConfig

from adamerge.checkpoints.atomic import atomic_write_text
from adamerge.errors import ConfigError
from adamerge.settings import instantiate
from adamerge.tracking.mirror import Mirror
from adamerge.tracking.recorded import ERROR


@contextmanager
def mirrored(cfg: DictConfig, folder: Path) -> Iterator[list[Mirror]]:
    """Around the work on a run folder that has its config. Whatever ends the work, the mirrors are closed; an
    interruption is no failure.

    Raises:
        ConfigError: a logger whose package is not installed.
    """
    mirrors = _open(cfg, folder)
    (folder / ERROR).unlink(missing_ok=True)
    started: list[Mirror] = []
    try:
        for mirror in mirrors:
            mirror.start()
            started.append(mirror)
        yield mirrors
    except BaseException as error:
        if isinstance(error, Exception):
            with suppress(OSError):
                atomic_write_text(folder / ERROR, f"{type(error).__name__}: {error}\n")
        for mirror in started:
            with suppress(Exception):  # the first error is what the user must see
                mirror.finish()
        raise
    for mirror in mirrors:
        mirror.finish()


def _open(cfg: DictConfig, folder: Path) -> list[Mirror]:
    from adamerge.training.lightning_mirror import as_mirror

    mirrors: list[Mirror] = []
    for name, node in (cfg.get("logger") or {}).items():
        try:
            mirrors.append(as_mirror(folder, instantiate(node, save_dir=folder)))
        except ModuleNotFoundError as error:
            raise ConfigError(f"logger.{name}: {error}\n  Install it, or set logger=none.") from error
    return mirrors
