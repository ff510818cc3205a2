"""A whole CLIP as an open_clip `local-dir:` folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from adamerge.checkpoints import save_tensors
from adamerge.files import atomic_write_text
from adamerge.models.clip import Model, model_config
from adamerge.models.pictures import PictureRules

WEIGHTS = "open_clip_model.safetensors"
CONFIG = "open_clip_config.json"


def save_local_dir(folder: Path, state: Mapping[str, Tensor], model: Model, pictures: PictureRules) -> None:
    """Write both towers' tensors (open_clip keys). The config comes last: it marks the folder complete."""
    save_tensors(folder / WEIGHTS, state)
    preprocess = {
        "mean": pictures.mean,
        "std": pictures.std,
        "interpolation": pictures.fit.interpolation,
        "resize_mode": pictures.fit.resize,
    }
    text = json.dumps({"model_cfg": model_config(model), "preprocess_cfg": preprocess}, indent=2)
    atomic_write_text(folder / CONFIG, text + "\n")
