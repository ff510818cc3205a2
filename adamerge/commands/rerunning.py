"""`train rerun=<folder>` and `merge rerun=<folder>`: a run again, from the config that its folder keeps.

It begins anew, as with rerun=true. The same config is the same run: in the same outputs it takes the place of the
first. Values typed beside it are laid over the config and make another run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from adamerge.commands.composed import find_mistakes_in, resolved
from adamerge.commands.overrides import Typed
from adamerge.commands.presets import deviations
from adamerge.errors import ConfigError, RunError
from adamerge.settings.check import validate
from adamerge.settings.commands import RunSettings
from adamerge.settings.mistakes import Mistakes
from adamerge.tracking.preset import Deviations, read_preset
from adamerge.tracking.run_record import RunRecord, merged_alone

_S = TypeVar("_S", bound=RunSettings)
_NEEDED = ("suite", "backbone", "checkpoints", "method", "rule")


def settings_again(command: str, typed: Sequence[Typed], kind: type[_S]) -> tuple[_S, Path]:
    """The settings of the run to make again with what was typed, and the folder that its config came from.

    Raises:
        ConfigError: a choice of a group among what was typed, or a value that does not fit.
        RunError: no run folder of this command.
    """
    folder = Path(str(next(option.value for option in typed if option.key == "rerun"))).expanduser()
    known = _config(folder, command)
    mistakes = Mistakes()
    changed = _laid_over(known, [option for option in typed if option.key != "rerun"], mistakes)
    if not mistakes.lines:
        find_mistakes_in(changed, command, mistakes)
    mistakes.report()
    return validate(resolved(changed, mistakes), kind), folder


def deviations_again(folder: Path) -> Callable[[RunSettings], Deviations]:
    """How settings differ from their preset: as the first run did, and in what was typed. A run folder's config is
    settled, and what that filled in is no deviation."""
    first = read_preset(folder)
    if first is None:
        return deviations
    before = deviations(RunSettings.model_validate(_config(folder, None)))

    def found(now: RunSettings) -> Deviations:
        after = deviations(now)
        kept = {
            key: (pair[0], pair[1])
            for key, pair in first.deviations.items()
            if key in after or key not in before
        }
        return kept | {key: pair for key, pair in after.items() if before.get(key) != pair}

    return found


def _config(folder: Path, command: str | None) -> dict[str, Any]:
    """The folder's config as plain data, which begins anew.

    Args:
        command: whose options it gets; None: those of any run.
    """
    if not (folder / "config.yaml").exists():
        raise RunError(f"rerun: {folder} is no run folder: it has no config.yaml.")
    known = RunRecord(folder).config()
    if missing := [key for key in _NEEDED if key not in known]:
        raise RunError(
            f"rerun: {folder} holds no run of train or merge: its config.yaml has no {', '.join(missing)}."
        )
    known = {key: value for key, value in known.items() if key not in ("maximise", "evaluate")}
    known["rerun"] = True
    if command == "merge":
        if known["method"].get("schedule") is not None:
            raise ConfigError(f"rerun: {folder} was trained; give train rerun={folder}.")
        known["evaluate"] = not merged_alone(folder)
    elif command == "train" and merged_alone(folder):
        raise ConfigError(f"rerun: {folder} was merged without evaluation; give merge rerun={folder}.")
    return known


def _laid_over(known: dict[str, Any], typed: Sequence[Typed], mistakes: Mistakes) -> DictConfig:
    config = OmegaConf.create(known)
    with open_dict(config):
        for option in typed:
            now = OmegaConf.select(config, option.key)
            if option.sweeps:
                mistakes.add(option.key, "has several values; a run is made again one at a time.")
            elif option.deletes:
                mistakes.add(option.key, f"cannot be left out of a run's own config; give {option.key}=null.")
            elif isinstance(now, DictConfig) and not (option.value is None or isinstance(option.value, dict)):
                mistakes.add(
                    option.key,
                    f"is chosen in the run's own config already ({now.get('name', 'as it stands there')}), whose other "
                    f"values may go with it.\nGive values ({option.key}.<option>=...), or the whole command again "
                    "without rerun=<folder>.",
                )
            else:
                try:
                    OmegaConf.update(config, option.key, option.value, force_add=True)
                except OmegaConfBaseException as error:
                    mistakes.add(option.key, str(error).splitlines()[0])
    return config
