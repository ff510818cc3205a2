"""The identity of a run: a hash of everything that can change its numbers, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

# Where a run writes, what it shows, how it loads: none of it changes a number.
_SILENT = ("logger", "callbacks", "outputs", "checkpoint_every", "workers", "experiment", "hydra")
_TRAINER_ALTERS = ("accelerator", "precision", "deterministic")
_DESCRIPTIONS = ("summary", "paper", "needs")


def run_id(config: DictConfig, files: Mapping[str, str], command: str) -> str:
    """Twelve hexadecimal digits.

    Args:
        config: the whole config.
        files: content ids of the weight files, which stand for their paths.
        command: what is done with the config.
    """
    plain: Any = OmegaConf.to_container(config, resolve=True)
    kept = {key: value for key, value in plain.items() if key not in _SILENT}
    kept["checkpoints"] = {**dict(files), "dtype": plain.get("checkpoints", {}).get("dtype")}
    kept["trainer"] = {k: v for k, v in plain.get("trainer", {}).items() if k in _TRAINER_ALTERS}
    kept["evaluation"] = None
    kept["command"] = command
    canonical = json.dumps(_without(kept, _DESCRIPTIONS), sort_keys=True)
    # Where the data lies does not matter; what is read from there is in the catalogue.
    if folder := (plain.get("suite") or {}).get("data"):
        canonical = canonical.replace(json.dumps(str(folder))[1:-1], "<data>")
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _without(value: Any, keys: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {k: _without(v, keys) for k, v in value.items() if k not in keys}
    return [_without(v, keys) for v in value] if isinstance(value, list) else value
