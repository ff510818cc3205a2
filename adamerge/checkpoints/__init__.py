"""Opens any supported checkpoint safely, names its tensors as open_clip does, compares, saves atomically.

Imported lazily, so that what only needs `atomic` does not import torch.
"""

from importlib import import_module
from typing import Any

_WHERE = {
    "Checkpoint": "reading",
    "open_checkpoint": "reading",
    "open_tensors": "reading",
    "save_tensors": "saving",
    "fingerprint": "saving",
    "compare_states": "misfits",
    "describe_misfits": "misfits",
    "guess_architecture": "misfits",
    "hf_to_open_clip": "keys",
    "open_clip_to_hf": "keys",
}

__all__ = [
    "Checkpoint",
    "compare_states",
    "describe_misfits",
    "fingerprint",
    "guess_architecture",
    "hf_to_open_clip",
    "open_checkpoint",
    "open_tensors",
    "open_clip_to_hf",
    "save_tensors",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"adamerge.checkpoints.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'adamerge.checkpoints' has no attribute '{name}'")
