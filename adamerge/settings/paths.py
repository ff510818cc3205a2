"""Folders: the config that ships with the package, the cache, the outputs; and their names in the YAMLs."""

from __future__ import annotations

import os
from pathlib import Path

from adamerge.errors import ConfigError

PACKAGE = Path(__file__).resolve().parent.parent


def conf_dir() -> Path:
    """The config folder: inside an installed package, or beside it in a checkout."""
    for folder in (PACKAGE / "conf", PACKAGE.parent / "conf"):
        if (folder / "train.yaml").exists():
            return folder
    raise ConfigError(f"There is no config folder in or beside {PACKAGE}. Install adamerge again.")


def cache_dir() -> Path:
    """$ADAMERGE_CACHE, or adamerge below the user's cache folder."""
    if chosen := os.environ.get("ADAMERGE_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "adamerge"


def outputs_dir() -> Path:
    """$ADAMERGE_OUTPUTS, or outputs below the working directory."""
    return Path(os.environ.get("ADAMERGE_OUTPUTS") or "outputs").expanduser()


def register_resolvers() -> None:
    """${package:zoo/mini}, ${cache:bases/mini} and ${outputs:} in the YAMLs."""
    from omegaconf import OmegaConf

    for name, folder in (("package", lambda: PACKAGE), ("cache", cache_dir), ("outputs", outputs_dir)):
        OmegaConf.register_new_resolver(
            name,
            lambda below="", folder=folder: str(folder() / below) if below else str(folder()),
            replace=True,
        )
