"""Folders: the config that ships with the package, the cache, the outputs; and their names in the YAMLs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from adamerge.cache_folder import cache_dir
from adamerge.errors import ConfigError

PACKAGE = Path(__file__).resolve().parent.parent


def conf_dir() -> Path:
    """The config folder: inside an installed package, or beside it in a checkout."""
    for folder in (PACKAGE / "conf", PACKAGE.parent / "conf"):
        if (folder / "train.yaml").exists():
            return folder
    raise ConfigError(f"There is no config folder in or beside {PACKAGE}. Install adamerge again.")


OWN = "conf.d"


def own_folder() -> Path | None:
    """conf.d in the working directory: YAMLs of the user's own in it as in conf/, and modules that they may name; None
    where there is none."""
    folder = Path(OWN).absolute()
    return folder if folder.is_dir() else None


def own_modules() -> list[str]:
    """The names of the Python modules and packages that lie in conf.d."""
    folder = own_folder()
    if folder is None:
        return []
    packages = {file.parent.name for file in folder.glob("*/__init__.py")}
    return sorted({file.stem for file in folder.glob("*.py")} | packages)


def outputs_dir() -> Path:
    """$ADAMERGE_OUTPUTS, or outputs below the working directory."""
    return Path(os.environ.get("ADAMERGE_OUTPUTS") or "outputs").expanduser()


def register_resolvers() -> None:
    """${package:zoo/mini}, ${cache:bases/mini}, ${outputs:} and ${prompts:sun397,classes} in the YAMLs."""
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("prompts", _prompts, replace=True)

    for name, folder in (("package", lambda: PACKAGE), ("cache", cache_dir), ("outputs", outputs_dir)):
        OmegaConf.register_new_resolver(
            name,
            lambda below="", folder=folder: str(folder() / below) if below else str(folder()),
            replace=True,
        )


def _prompts(task: str, part: str) -> Any:
    """Class names or templates of one of the papers' tasks."""
    from omegaconf import OmegaConf

    from adamerge.tasks.prompts import prompts

    return OmegaConf.create(list(getattr(prompts(task), part)))
