"""The identity of a run: a hash of everything that can change its numbers, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

# Where a run writes, what it shows, how it loads: none of it changes a number.
_SILENT = (
    *("logger", "callbacks", "outputs", "folder", "experiment", "experiment_name", "hydra"),
    *(
        "checkpoint_every",
        "eval_every",
        "eval_images",
        "chooser",
        "workers",
        "evaluation",
        "checkpoints",
        "start",
        "download",
        "activation_checkpointing",
        "maximise",
    ),
)
_SILENT_TRAINER = (
    *("benchmark", "detect_anomaly", "devices", "enable_progress_bar", "inference_mode"),
    *("log_every_n_steps", "profiler"),
)
_DESCRIPTIONS = ("summary", "paper", "needs", "trains", "memory")


def run_id(config: DictConfig, files: Mapping[str, str], command: str) -> str:
    """Twelve hexadecimal digits.

    Args:
        config: the whole config.
        files: content ids of the weight files, which stand for their paths.
        command: what is done with the config.
    """
    plain = _resolved(config)
    kept = {key: value for key, value in plain.items() if key not in _SILENT}
    trainer = plain.get("trainer") or {}
    kept["trainer"] = {key: value for key, value in trainer.items() if key not in _SILENT_TRAINER}
    kept["files"] = {**files, "dtype": (plain.get("checkpoints") or {}).get("dtype")}
    kept["command"] = command
    if suite := plain.get("suite"):
        # A task that the suite offers but the run leaves out does not matter.
        entries = suite["catalogue"]
        # Without a corruption its options do not matter either.
        clean = () if suite.get("corruption") else ("corruption", "severity", "strengths")
        kept["suite"] = {
            **{k: v for k, v in suite.items() if k not in (*clean, "sources", "decode_cache", "chooser")},
            "catalogue": {
                k: v for k, v in entries.items() if k in (*suite["tasks"], *suite.get("unseen", []), "*")
            },
        }
    canonical = json.dumps(_without(kept, _DESCRIPTIONS), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _resolved(config: DictConfig) -> dict[str, Any]:
    """The config as plain data, with fixed values for the data's folder and `download` wherever they stand."""
    config = config.copy()
    if "data" in config.get("suite", {}):
        OmegaConf.update(config, "suite.data", "<data>")
    if "download" in config:
        config.download = False
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return plain  # type: ignore[no-any-return]


def _without(value: Any, keys: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {k: _without(v, keys) for k, v in value.items() if k not in keys}
    return [_without(v, keys) for v in value] if isinstance(value, list) else value
