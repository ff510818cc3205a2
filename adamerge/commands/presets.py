"""How settings differ from the preset that they name: the shipped method and rule on the shipped suite, untouched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import open_dict
from omegaconf.errors import OmegaConfBaseException

from adamerge.commands.composed import resolved
from adamerge.commands.config_folders import ConfigFolders, opened_folders
from adamerge.errors import ConfigError
from adamerge.settings.check import validate
from adamerge.settings.commands import RunSettings, TrainSettings
from adamerge.settings.mistakes import Mistakes
from adamerge.settings.paths import conf_dir, register_resolvers
from adamerge.tracking.preset import Deviations

_WORDS = ("summary", "paper", "needs", "trains", "memory")
# Of the suite: where the data lie, and what the suite's reported name and the list of tasks say already.
_SUITE = (
    *("tasks", "unseen", "catalogue", "sources", "origin", "data", "decode_cache", "splits", "allow_overlap"),
    *("corruption", "severity", "strengths", "test_split", "validation", "limit", "chooser"),
)
# Of a task: what makes its head.
_HEAD = ("classes", "names", "templates")
# Of the trainer: where and how it is shown.
_TRAINER = (
    *(
        "accelerator",
        "benchmark",
        "detect_anomaly",
        "deterministic",
        "devices",
        "enable_progress_bar",
        "inference_mode",
    ),
    *("log_every_n_steps", "profiler"),
)
_GROUPS = ("method", "rule", "suite", "backbone", "checkpoints")


def deviations(settings: RunSettings) -> Deviations:
    """{option: (its value here, its value in the preset)} for every option that can change a number.

    The preset has the same method, rule, suite, backbone and family of checkpoints by name. A name that does not ship
    with adamerge has no preset: {"method": ("mine", None)}.
    """
    names = {group: str(getattr(settings, group).name) for group in _GROUPS}
    with _shipped() as folders:
        unknown = {group: (name, None) for group, name in names.items() if name not in folders.choices(group)}
        if unknown:
            return unknown
        mistakes = Mistakes()
        try:
            words = [f"{group}={name}" for group, name in names.items()]
            config = folders.compose("train", [*words, f"seed={settings.seed}"])  # a rule may draw by it
            with open_dict(config):
                del config["hydra"]
                # What a suite of any tasks asks for is not of the preset.
                config.suite.tasks = settings.suite.tasks
            preset = validate(resolved(config, mistakes), TrainSettings)
        except (HydraException, OmegaConfBaseException, ConfigError) as error:
            return {"method": (names["method"], f"cannot be composed: {error}")}
    theirs, ours = _compared(preset, settings.suite.tasks), _compared(settings, settings.suite.tasks)
    keys = [*ours, *(key for key in theirs if key not in ours)]
    return {key: (ours.get(key), theirs.get(key)) for key in keys if ours.get(key) != theirs.get(key)}


@contextmanager
def _shipped() -> Iterator[ConfigFolders]:
    """The package's own config folder, also from within a job that Hydra has started."""
    register_resolvers()
    running = GlobalHydra.instance().hydra
    try:
        with opened_folders(conf_dir(), None, ()) as folders:
            yield folders
    finally:
        GlobalHydra.instance().hydra = running


def _compared(settings: RunSettings, tasks: Sequence[str]) -> dict[str, Any]:
    """What can change a number, by dotted key."""

    def section(where: str, silent: tuple[str, ...] = ()) -> dict[str, Any]:
        values = getattr(settings, where).model_dump()
        return {where: {key: value for key, value in values.items() if key not in silent}}

    catalogue = settings.suite.catalogue
    heads = {
        task: {key: catalogue[task][key] for key in _HEAD if catalogue[task].get(key) is not None}
        for task in tasks
        if task in catalogue
    }
    return _flat(
        section("method", _WORDS)
        | section("rule", ("grid", *_WORDS))
        | section("suite", (*_SUITE, *_WORDS))
        | section("backbone", (*_WORDS, "names", "papers"))
        | section("stream", ("name", *_WORDS))
        | section("trainer", _TRAINER)
        | section("evaluation", ("batch_size", "keep_predictions"))
        | {"checkpoints": {"dtype": settings.checkpoints.dtype}, "suite.catalogue": heads}
        | {"attack": {"tasks": settings.attack.tasks}}
        | {"post": "+".join(settings.post) or None}
        | {f"post.{name}": post.model_dump(exclude_unset=True) for name, post in settings.post.items()}
        | {"origin": settings.origin}
        | {"guard": None if settings.guarded is None else settings.guarded.model_dump()}
        | {"choose": None if settings.choice is None else settings.choice.model_dump()}
    )


def _flat(node: Any, where: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {where: node}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= _flat(value, f"{where}.{key}" if where else str(key))
    return flat
