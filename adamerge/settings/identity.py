"""The identity of a run: a hash of everything that can change its numbers, and of nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adamerge.digests import digest
from adamerge.settings.code import own_code
from adamerge.settings.commands import PoolSettings, RunSettings
from adamerge.settings.sections import OF_PICTURES

# Where a run writes, what it shows, how it loads: none of it changes a number.
_SILENT = (
    *("logger", "callbacks", "outputs", "folder", "experiment", "experiment_name", "hydra"),
    *("checkpoint_every", "eval_every", "eval_images", "chooser", "workers", "evaluation", "checkpoints"),
    *("start", "name", "download", "rerun", "activation_checkpointing", "maximise", "routing"),
)
_SILENT_TRAINER = (
    *("benchmark", "detect_anomaly", "devices", "enable_progress_bar", "inference_mode"),
    *("log_every_n_steps", "profiler"),
)
# Where pictures come from: their own identity counts.
_SILENT_SUITE = ("data", "origin", "splits", "sources", "decode_cache", "chooser")
_SILENT_TASK = ("source", "sizes", "licence")
_DESCRIPTIONS = ("summary", "paper", "needs", "trains", "memory")

Pictures = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Identity:
    """What a run is made of.

    Attributes:
        settings: a hash of the settings that can change a number.
        files: {name: content id} of the weight files, which stand for their paths.
        pictures: {task: {split: identity}} of the pictures and labels, which stand for their places.
        code: {module: hash} of adamerge, by its version, and of modules of the user's own.
    """

    settings: str
    files: Mapping[str, str]
    pictures: Pictures
    code: Mapping[str, str]

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits."""
        return digest(vars(self))[:12]


def identify(
    settings: PoolSettings,
    command: str,
    files: Mapping[str, str],
    pictures: Pictures,
    editions: Mapping[str, int] | None = None,
) -> Identity:
    """The identity of what `command` does with settings, these weight files and these pictures.

    Args:
        editions: of parts of adamerge whose changes change numbers, beside the version.
    """
    # What is at its default is left out, so that a later option changes no identity of runs without it.
    kept = _kept(settings.model_dump(exclude_defaults=True))
    if settings.post:  # one after the other: the order counts, which a mapping's digest does not tell
        kept["post"] = [[name, kept["post"][name]] for name in settings.post]
    if isinstance(settings, RunSettings) and settings.guarded is not None:
        # In full: it is one also where all its options are at their default.
        kept["guard"] = settings.guarded.model_dump()
    if isinstance(settings, RunSettings) and settings.choice is not None:
        grid = settings.choice.grid or settings.rule.grid
        kept["choose"] = {**settings.choice.model_dump(), "grid": grid}
    kept["command"] = command
    if settings.evaluation.precision != "32-true":
        kept["evaluated_in"] = settings.evaluation.precision
    kept["dtype"] = settings.checkpoints.dtype
    if settings.checkpoints.heads in OF_PICTURES:
        kept["heads"] = {"made": settings.checkpoints.heads, "shots": settings.checkpoints.shots}
    if settings.checkpoints.normalize is not None:
        kept["normalize"] = settings.checkpoints.normalize
    code = own_code(kept) | {part: str(edition) for part, edition in (editions or {}).items()}
    return Identity(digest(canonical(kept)), dict(files), pictures, code)


def _kept(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that can change a number."""
    kept = {key: value for key, value in plain.items() if key not in _SILENT}
    if rule := plain.get("rule"):  # of its grid only a choice makes use
        kept["rule"] = {key: value for key, value in rule.items() if key != "grid"}
    trainer = plain.get("trainer") or {}
    kept["trainer"] = {key: value for key, value in trainer.items() if key not in _SILENT_TRAINER}
    if suite := plain.get("suite"):
        # Without a corruption its options do not matter.
        clean = () if suite.get("corruption") else ("corruption", "severity", "strengths")
        kept["suite"] = {k: v for k, v in suite.items() if k not in (*clean, *_SILENT_SUITE)}
        kept["suite"]["catalogue"] = _entries(suite)
    described: dict[str, Any] = _without(kept, _DESCRIPTIONS)
    return described


def _entries(suite: Mapping[str, Any]) -> dict[str, Any]:
    """The tasks in use. A source of adamerge's is known by its pictures, one of the user's also by its options."""
    used = (*suite["tasks"], *suite.get("unseen", []), "*")
    entries = {task: dict(entry) for task, entry in suite["catalogue"].items() if task in used}
    for entry in entries.values():
        source = entry.get("source") or {}
        own = not str(source.get("_target_", "adamerge.")).startswith("adamerge.")
        if own:
            entry["made_by"] = {k: v for k, v in source.items() if v is None or v != suite.get("data")}
    return {task: {k: v for k, v in e.items() if k not in _SILENT_TASK} for task, e in entries.items()}


def canonical(value: Any, component: bool = False) -> Any:
    """Plain data in one spelling: 1.0 is 1, and what is not set is left out, but for a component's options."""
    if isinstance(value, Mapping):
        inside = component or "_target_" in value
        spelled = {key: canonical(v, inside) for key, v in value.items()}
        return {k: v for k, v in spelled.items() if inside or (v is not None and v != {})}
    if isinstance(value, list | tuple):
        return [canonical(v, component) for v in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _without(value: Any, keys: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {k: _without(v, keys) for k, v in value.items() if k not in keys}
    return [_without(v, keys) for v in value] if isinstance(value, list) else value
